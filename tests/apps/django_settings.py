"""Django's settings for all tests of this process: they can be configured only once. Tests override what they need."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command

_state = {"migrated": False}


def configure() -> None:
    """Set Django up, with users and sessions in an SQLite file of this process's own."""
    if settings.configured:
        return
    folder = Path(tempfile.mkdtemp(prefix="profile-enrich-django-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings.configure(
        ROOT_URLCONF="tests.apps.django_app",
        SECRET_KEY="secret",
        ALLOWED_HOSTS=["*"],
        LOGGING_CONFIG=None,
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3")}},
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "profile_enrich.django",
        ],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    )
    django.setup(set_prefix=False)


def migrate() -> None:
    """Create the tables, once."""
    configure()
    if not _state["migrated"]:
        call_command("migrate", verbosity=0)
        _state["migrated"] = True
