"""The smallest complete Litestar application: sign in, and the page knows who you are.

    pip install "profile-enrich[server,litestar]"
    uvicorn examples.frameworks.litestar_shop:app

Then open http://127.0.0.1:8000/sign-in/u1 and http://127.0.0.1:8000/.
"""

from litestar import Litestar, get
from litestar.datastructures import Cookie
from litestar.params import FromPath
from litestar.response import Redirect

from profile_enrich import MemorySource, ProfileClient, from_cookie
from profile_enrich.litestar import CurrentProfile, ProfilePlugin, profile_required

# In production: CensusSource(api_key=..., entity="Users"), AmperitySource(...) or StoreSource("profiles.store").
profiles = ProfileClient(MemorySource({"u1": {"first_name": "Ada", "tier": "gold"}, "u2": {"first_name": "Ben"}}))


@get("/")
async def home(profile: CurrentProfile) -> dict[str, str]:
    return {"hello": profile.get("first_name", "there"), "offer": "lounge" if profile.get("tier") == "gold" else "tea"}


@get("/account", guards=[profile_required])
async def account(profile: CurrentProfile) -> CurrentProfile:
    return profile


@get("/sign-in/{user_id:str}")  # a stand-in for your own; in earnest, sign the cookie: from_signed_cookie
async def sign_in(user_id: FromPath[str]) -> Redirect:
    return Redirect("/", status_code=303, cookies=[Cookie("user_id", value=user_id, httponly=True, samesite="lax")])


app = Litestar([home, account, sign_in], plugins=[ProfilePlugin(client=profiles, identify=from_cookie("user_id"))])
