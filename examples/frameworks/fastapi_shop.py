"""The smallest complete FastAPI application: sign in, and the page knows who you are.

    pip install "profile-enrich[fastapi,session,server]"
    uvicorn examples.frameworks.fastapi_shop:app

Then open http://127.0.0.1:8000/sign-in/u1 and http://127.0.0.1:8000/.
"""

import os
import secrets

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware

from profile_enrich import MemorySource, ProfileClient, ProfileMiddleware, from_session
from profile_enrich.fastapi import CurrentProfile, RequiredProfile

# In production: CensusSource(api_key=..., entity="Users"), AmperitySource(...) or StoreSource("profiles.store").
profiles = ProfileClient(MemorySource({"u1": {"first_name": "Ada", "tier": "gold"}, "u2": {"first_name": "Ben"}}))

app = FastAPI(
    lifespan=profiles.lifespan,
    middleware=[
        Middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET", secrets.token_hex())),
        Middleware(ProfileMiddleware, client=profiles, identify=from_session("user_id")),
    ],
)


@app.get("/")
async def home(profile: CurrentProfile) -> dict[str, str]:
    return {"hello": profile.get("first_name", "there"), "offer": "lounge" if profile.get("tier") == "gold" else "tea"}


@app.get("/account")
async def account(profile: RequiredProfile) -> dict[str, object]:  # 401 for nobody, 404 unknown, 503 unavailable
    return profile.as_dict()


@app.get("/sign-in/{user_id}")  # a stand-in for your own
async def sign_in(request: Request, user_id: str) -> RedirectResponse:
    request.session["user_id"] = user_id
    return RedirectResponse("/", status_code=303)
