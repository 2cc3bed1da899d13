"""Django's settings for all tests of this process: they can be configured only once. Tests override what they need."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db.backends.signals import connection_created

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
    connection_created.connect(_close_when_collected)


def _close_when_collected(connection: Any, **_: object) -> None:
    """Close a connection that Django leaves to the garbage collector after its thread ended, as Python 3.13 asks."""
    weakref.finalize(connection, connection.connection.close)


def migrate() -> None:
    """Create the tables, once."""
    configure()
    if not _state["migrated"]:
        call_command("migrate", verbosity=0)
        _state["migrated"] = True
