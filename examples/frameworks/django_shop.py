"""The smallest complete Django application: sign in, and the page knows who you are.

    pip install "profile-enrich[server,django]"
    uvicorn examples.frameworks.django_shop:app --lifespan off

Then open http://127.0.0.1:8000/sign-in/u1 and http://127.0.0.1:8000/.
"""

import os
import secrets
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponseRedirect, JsonResponse
from django.urls import path

from profile_enrich import MemorySource, ProfileClient, from_session

# In production: CensusSource(api_key=..., entity="Users"), AmperitySource(...) or StoreSource("profiles.store").
profiles = ProfileClient(MemorySource({"u1": {"first_name": "Ada", "tier": "gold"}, "u2": {"first_name": "Ben"}}))

if not settings.configured:  # in a project of yours, settings.py says all this
    settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ.get("SESSION_SECRET", secrets.token_hex()),
        ALLOWED_HOSTS=["127.0.0.1", "localhost", "testserver"],
        INSTALLED_APPS=["profile_enrich.django"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "profile_enrich.django.DjangoProfileMiddleware",
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        # With django.contrib.auth, leave IDENTIFY out: it is the primary key of request.user.
        PROFILE_ENRICH={"CLIENT": profiles, "IDENTIFY": from_session("user_id")},
    )
    django.setup()


async def home(request: Any) -> Any:
    profile = await request.aprofile()  # in a synchronous view: request.profile
    return JsonResponse(
        {"hello": profile.get("first_name", "there"), "offer": "lounge" if profile.get("tier") == "gold" else "tea"}
    )


async def sign_in(request: Any, user_id: str) -> Any:  # a stand-in for your own
    await request.session.aset("user_id", user_id)
    return HttpResponseRedirect("/")


urlpatterns = [path("", home), path("sign-in/<str:user_id>", sign_in)]

app = get_asgi_application()
wsgi_app = get_wsgi_application()  # gunicorn examples.frameworks.django_shop:wsgi_app
