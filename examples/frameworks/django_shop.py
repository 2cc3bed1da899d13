"""The smallest complete Django application (ASGI): sign in, and the page knows who you are.

    pip install "profile-enrich[server]" django
    uvicorn examples.frameworks.django_shop:app --lifespan off

Then open http://127.0.0.1:8000/sign-in/u1 and http://127.0.0.1:8000/.
"""

import os
import secrets
from importlib import import_module
from typing import Any

import django
from django.conf import settings
from starlette.requests import HTTPConnection

from profile_enrich import MemorySource, ProfileClient, ProfileMiddleware, get_profile

if not settings.configured:  # in a project of yours, settings.py says all this
    settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ.get("SESSION_SECRET", secrets.token_hex()),
        ALLOWED_HOSTS=["127.0.0.1", "localhost", "testserver"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    )
    django.setup()

from django.core.asgi import get_asgi_application
from django.http import HttpResponseRedirect, JsonResponse
from django.urls import path

# In earnest: CensusSource(api_key=..., entity="Users"), AmperitySource(...) or StoreSource("profiles.store").
profiles = ProfileClient(MemorySource({"u1": {"first_name": "Ada", "tier": "gold"}, "u2": {"first_name": "Ben"}}))


async def who(connection: HTTPConnection) -> str | None:
    """Whoever is in Django's session. The middleware is around Django, so it opens the session itself."""
    store = import_module(settings.SESSION_ENGINE).SessionStore(connection.cookies.get(settings.SESSION_COOKIE_NAME))
    user_id: str | None = await store.aget("user_id")  # with auth: "_auth_user_id"
    return user_id


async def home(request: Any) -> Any:
    profile = await get_profile(request)  # Django's request has the scope, and that is all it takes
    return JsonResponse(
        {"hello": profile.get("first_name", "there"), "offer": "lounge" if profile.get("tier") == "gold" else "tea"}
    )


async def sign_in(request: Any, user_id: str) -> Any:  # a stand-in for your own
    await request.session.aset("user_id", user_id)
    return HttpResponseRedirect("/")


urlpatterns = [path("", home), path("sign-in/<str:user_id>", sign_in)]

app = ProfileMiddleware(get_asgi_application(), client=profiles, identify=who)
