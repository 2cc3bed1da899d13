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

from .._utils.optional_import import needs_extra

with needs_extra("flask", "profile_enrich.flask", "flask"):
    from .extension import ProfileEnrich, current_profile, profile_required, refresh_profile

__all__ = ["ProfileEnrich", "current_profile", "profile_required", "refresh_profile"]
