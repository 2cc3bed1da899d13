"""The smallest complete Flask application: sign in, and the page knows who you are.

    pip install "profile-enrich[flask]" gunicorn
    gunicorn --threads 8 examples.frameworks.flask_shop:app

Then open http://127.0.0.1:8000/sign-in/u1 and http://127.0.0.1:8000/.
"""

import os
import secrets

from flask import Flask, redirect, session
from werkzeug.wrappers import Response

from profile_enrich import MemorySource, ProfileClient, from_session
from profile_enrich.flask import ProfileEnrich, current_profile, profile_required

# In production: CensusSource(api_key=..., entity="Users"), AmperitySource(...) or StoreSource("profiles.store").
profiles = ProfileClient(MemorySource({"u1": {"first_name": "Ada", "tier": "gold"}, "u2": {"first_name": "Ben"}}))

app = Flask(__name__)
app.secret_key = os.environ.get("SESSION_SECRET", secrets.token_hex())
ProfileEnrich(app, client=profiles, identify=from_session("user_id"))


@app.get("/")
def home() -> dict[str, str]:
    profile = current_profile
    return {"hello": profile.get("first_name", "there"), "offer": "lounge" if profile.get("tier") == "gold" else "tea"}


@app.get("/account")
@profile_required
def account() -> dict[str, object]:
    return current_profile.as_dict()


@app.get("/sign-in/<user_id>")  # a stand-in for your own
def sign_in(user_id: str) -> Response:
    session["user_id"] = user_id
    return redirect("/")
