"""The applications that gunicorn serves: `flask_app` and `django_app`, over the vendor named in the environment.

`WARM_UP` names a key that the module looks up when it is imported: with `--preload`, before the fork.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from flask import Flask

from profile_enrich import CensusSource, ProfileClient, from_cookie
from profile_enrich.flask import ProfileEnrich, current_profile

client = ProfileClient(CensusSource(api_key="secret", entity="Users", base_url=os.environ["VENDOR_URL"]), ttl=600)

flask_app = Flask(__name__)
profiles = ProfileEnrich(flask_app, client=client, identify=from_cookie("who"), budget=5.0)


def about(profile: Any) -> str:
    time.sleep(0.05)  # so that a burst of requests reaches several threads
    names = [thread.name for thread in threading.enumerate()]
    return json.dumps(
        {
            "tier": profile.get("tier"),
            "pid": os.getpid(),
            "thread": threading.get_ident(),
            "own": sum(name == "profile_enrich" for name in names),
        }
    )


@flask_app.get("/")
def home() -> str:
    return about(current_profile)


settings.configure(
    SECRET_KEY="secret",
    ROOT_URLCONF="tests.frameworks.served_urls",
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["profile_enrich.django.DjangoProfileMiddleware"],
    INSTALLED_APPS=["profile_enrich.django"],
    PROFILE_ENRICH={"CLIENT": client, "IDENTIFY": from_cookie("who"), "BUDGET": 5.0},
)
django.setup(set_prefix=False)

django_app = get_wsgi_application()
django_asgi_app = get_asgi_application()

if "WARM_UP" in os.environ:
    from profile_enrich.django.settings import load_config

    for blocking in (profiles._config.client, load_config().client):
        blocking.get(os.environ["WARM_UP"])
        blocking.refresh(os.environ["WARM_UP"])
