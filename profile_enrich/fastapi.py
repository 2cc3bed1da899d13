"""The profile as a FastAPI parameter.

```python
@app.get("/offers")
async def offers(profile: CurrentProfile) -> dict[str, str]:
    return {"tier": profile.get("tier", "guest")}
```
"""

from __future__ import annotations

from typing import Annotated

from .errors import MissingExtraError
from .profile import Profile
from .web.dependencies import get_profile, require_profile

try:
    from fastapi import Depends
except ImportError:
    raise MissingExtraError("profile_enrich.fastapi", "fastapi") from None

__all__ = ["CurrentProfile", "RequiredProfile"]

CurrentProfile = Annotated[Profile, Depends(get_profile)]
"""The profile of whoever is in session, empty when there is none: `Annotated[Profile, Depends(get_profile)]`."""

RequiredProfile = Annotated[Profile, Depends(require_profile)]
"""The profile, or an error response (401, 403, 404, 503): `Annotated[Profile, Depends(require_profile)]`."""
