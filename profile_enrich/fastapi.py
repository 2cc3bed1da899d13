"""FastAPI parameters that hold the profile.

```python
@app.get("/offers")
async def offers(profile: CurrentProfile) -> dict[str, object]:
    return {"tier": profile.get("tier", "guest")}


@app.get("/account", responses=REQUIRED_PROFILE_RESPONSES)
async def account(profile: RequiredProfile) -> Profile:
    return profile
```

In tests, one override of `get_profile` sets both: `app.dependency_overrides[get_profile] = ...`.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from starlette.requests import HTTPConnection

from ._utils.optional_import import needs_extra
from .profile import Profile
from .web.profile_dependencies import get_profile, require_profile

with needs_extra("fastapi", "profile_enrich.fastapi", "fastapi"):
    from fastapi import Depends

__all__ = ["REQUIRED_PROFILE_RESPONSES", "CurrentProfile", "RequiredProfile"]

CurrentProfile = Annotated[Profile, Depends(get_profile)]
"""The signed-in person's profile, empty if there is none: `Annotated[Profile, Depends(get_profile)]`."""

RequiredProfile = Annotated[Profile, Depends(require_profile)]
"""The profile, or an error response (401, 403, 404, 503): `Annotated[Profile, Depends(require_profile)]`."""

_DETAIL = {
    "application/json": {
        "schema": {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
    }
}

REQUIRED_PROFILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"description": "Nobody is signed in", "content": _DETAIL},
    403: {"description": "There is no consent, or the profile is excluded", "content": _DETAIL},
    404: {"description": "There is no profile", "content": _DETAIL},
    503: {"description": "The profile is not available at the moment", "content": _DETAIL},
}
"""The error responses of `RequiredProfile` for OpenAPI; pass it as `responses=` to a route or router."""

require_profile.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # see where it is defined
    [
        inspect.Parameter("connection", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection),
        inspect.Parameter("profile", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=CurrentProfile),
    ]
)
