"""Django integration: `request.profile` and `await request.aprofile()`, under WSGI and ASGI.

```python
INSTALLED_APPS = [..., "profile_enrich.django"]
MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware",
              "profile_enrich.django.DjangoProfileMiddleware"]
PROFILE_ENRICH = {"CLIENT": "shop.profiles.client"}
```
"""

from __future__ import annotations

from ..errors import MissingExtraError

try:
    import django as _django  # pyright: ignore[reportUnusedImport]  # noqa: F401  # only checks that it is installed
except ImportError:
    raise MissingExtraError("profile_enrich.django", "django") from None

from .decorators import profile_required
from .lookup import refresh_profile
from .middleware import DjangoProfileMiddleware

__all__ = ["DjangoProfileMiddleware", "profile_required", "refresh_profile"]
