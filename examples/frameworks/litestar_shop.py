"""The smallest complete Litestar application: sign in, and the page knows who you are.

    pip install "profile-enrich[server]" litestar
    uvicorn examples.frameworks.litestar_shop:app

Then open http://127.0.0.1:8000/sign-in/u1 and http://127.0.0.1:8000/.
"""

from typing import Any, cast

from litestar import Litestar, Request, get
from litestar.datastructures import Cookie
from litestar.response import Redirect
from starlette.types import ASGIApp

from profile_enrich import MemorySource, ProfileClient, ProfileMiddleware, from_cookie

# In earnest: CensusSource(api_key=..., entity="Users"), AmperitySource(...) or StoreSource("profiles.store").
profiles = ProfileClient(MemorySource({"u1": {"first_name": "Ada", "tier": "gold"}, "u2": {"first_name": "Ben"}}))


@get("/")
async def home(request: Request[Any, Any, Any]) -> dict[str, str]:
    profile = request.state.profile  # a mapping, never None
    return {"hello": profile.get("first_name", "there"), "offer": "lounge" if profile.get("tier") == "gold" else "tea"}


@get("/sign-in/{user_id:str}")  # a stand-in for your own; in earnest, sign the cookie: from_signed_cookie
async def sign_in(user_id: str) -> Redirect:
    return Redirect("/", status_code=303, cookies=[Cookie("user_id", value=user_id, httponly=True, samesite="lax")])


async def close_profiles() -> None:
    await profiles.aclose()


shop = Litestar([home, sign_in], on_shutdown=[close_profiles])

# Around the whole application: its own middleware wraps each route, and would run after the routing.
app = ProfileMiddleware(cast(ASGIApp, shop), client=profiles, identify=from_cookie("user_id"))
