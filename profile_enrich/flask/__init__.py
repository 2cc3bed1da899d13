"""Flask integration: `flask.g.profile` and `current_profile`.

```python
profiles = ProfileClient(source)
ProfileEnrich(app, client=profiles, identify=from_session("user_id"))

@app.get("/")
def home():
    return f"Hello {current_profile.get('first_name', 'there')}"
```
"""

from __future__ import annotations

from ..errors import MissingExtraError

try:
    import flask as _flask  # pyright: ignore[reportUnusedImport]  # noqa: F401  # only checks that it is installed
except ImportError:
    raise MissingExtraError("profile_enrich.flask", "flask") from None

from .extension import ProfileEnrich, current_profile, profile_required, refresh_profile

__all__ = ["ProfileEnrich", "current_profile", "profile_required", "refresh_profile"]
