"""Django integration: `request.profile` and `await request.aprofile()`, under WSGI and ASGI.

```python
INSTALLED_APPS = [..., "profile_enrich.django"]
MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware",
              "profile_enrich.django.DjangoProfileMiddleware"]
PROFILE_ENRICH = {"CLIENT": "shop.profiles.client"}
```
"""

from __future__ import annotations

from .._utils.optional_import import needs_extra

with needs_extra("django", "profile_enrich.django", "django"):
    from .decorators import profile_required
    from .lookup import refresh_profile
    from .middleware import DjangoProfileMiddleware

__all__ = ["DjangoProfileMiddleware", "profile_required", "refresh_profile"]
