"""`manage.py check` and start-up report errors in the settings."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("django", reason="Django is not installed: pip install django")

from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import override_settings

from profile_enrich import MemorySource, ProfileClient, from_cookie, from_session
from profile_enrich.django.middleware import DjangoProfileMiddleware
from tests.frameworks.django_site import AUTH, OURS, SESSION

ROOT = Path(__file__).parents[2]

client = ProfileClient(MemorySource({"1": {"id": "1"}}))

not_a_client = 7

urlpatterns: list[Any] = []

PROCESSOR = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"context_processors": ["profile_enrich.django.context_processors.profile"]},
    }
]


def make_client() -> ProfileClient:
    return client


def findings(**settings: Any) -> list[tuple[str, str, str]]:
    everything = {
        "MIDDLEWARE": [SESSION, AUTH, OURS],
        "PROFILE_ENRICH": {"CLIENT": client},
        "ROOT_URLCONF": "tests.apps.django_app",
        **settings,
    }
    with override_settings(**everything):
        return [(m.id, m.msg, m.hint) for m in run_checks(tags=["profile_enrich"])]


@pytest.mark.parametrize(
    "value",
    [
        {"CLIENT": client},
        {"CLIENT": "tests.frameworks.test_django_checks.client"},
        {"CLIENT": "tests.frameworks.test_django_checks.make_client"},
        {"CLIENT": client, "IDENTIFY": from_session(), "BUDGET": None, "EXCLUDE": ["/static"], "VARY_ON": ["Cookie"]},
    ],
)
def test_a_good_set_up_is_silent(value: dict[str, Any]) -> None:
    assert findings(PROFILE_ENRICH=value) == []


@pytest.mark.parametrize(
    ("value", "id_", "says", "hint"),
    [
        (None, "E001", "must be a dict, not NoneType", "CLIENT"),
        ([], "E001", "must be a dict, not list", "CLIENT"),
        ({"CLIENT": client, "BUGDET": 1}, "E002", "no key 'BUGDET'", "Did you mean 'BUDGET'?"),
        ({"CLIENT": client, "client": 1}, "E002", "no key 'client'", "Did you mean 'CLIENT'?"),
        ({}, "E003", 'no "CLIENT"', "dotted path"),
        ({"CLIENT": "shop.nowhere.client"}, "E004", "'shop.nowhere.client' cannot be imported", "dotted path"),
        (
            {"CLIENT": client, "CONSENT": "consent"},
            "E004",
            "[\"CONSENT\"]: 'consent' cannot be imported",
            "dotted path",
        ),
        ({"CLIENT": "tests.frameworks.test_django_checks.not_a_client"}, "E005", '["CLIENT"] must be', ""),
        ({"CLIENT": client, "BUDGET": "50ms"}, "E005", '["BUDGET"] must be a number of seconds', ""),
        ({"CLIENT": client, "BUDGET": -1}, "E005", '["BUDGET"] must be a number of seconds', ""),
        ({"CLIENT": client, "IDENTIFY": 3}, "E005", '["IDENTIFY"] must be callable', ""),
        ({"CLIENT": client, "CONSENT": 3}, "E005", '["CONSENT"] must be callable', ""),
        ({"CLIENT": client, "EXCLUDE": "/static"}, "E005", '["EXCLUDE"] must be a list', ""),
        ({"CLIENT": client, "EXCLUDE": ["static"]}, "E005", '["EXCLUDE"] each path prefix must start', ""),
        ({"CLIENT": client, "VARY_ON": "Cookie"}, "E005", '["VARY_ON"] must be a list', ""),
        ({"CLIENT": client, "ATTRIBUTE": "my profile"}, "E005", '["ATTRIBUTE"] must be a name', ""),
    ],
)
def test_A25_a_bad_value_is_named_by_the_check_and_refused_at_start(value: Any, id_: str, says: str, hint: str) -> None:
    """A25: the check names the key of the setting; without the check, start-up says the same."""
    ((found_id, message, found_hint),) = findings(PROFILE_ENRICH=value)
    assert found_id == f"profile_enrich.{id_}"
    assert says in message
    assert hint in found_hint
    with override_settings(PROFILE_ENRICH=value), pytest.raises(ImproperlyConfigured, match=re.escape(says)):
        DjangoProfileMiddleware(lambda request: None)


@pytest.mark.parametrize(
    ("settings", "id_", "says"),
    [
        ({"MIDDLEWARE": [SESSION, AUTH]}, "W001", "is not in MIDDLEWARE: requests have no profile"),
        ({"MIDDLEWARE": [OURS, SESSION, AUTH]}, "W002", "comes after DjangoProfileMiddleware"),
        ({"MIDDLEWARE": [SESSION, OURS]}, "W002", "AuthenticationMiddleware is not in MIDDLEWARE"),
        ({"MIDDLEWARE": [SESSION, AUTH, OURS, OURS]}, "E006", "in MIDDLEWARE 2 times"),
        ({"MIDDLEWARE": [SESSION, AUTH], "TEMPLATES": PROCESSOR}, "E007", "context_processors.profile needs"),
        (
            {"MIDDLEWARE": [OURS], "PROFILE_ENRICH": {"CLIENT": client, "IDENTIFY": from_session()}},
            "W002",
            "needs request.session",
        ),
    ],
)
def test_A26_a_misplacement_is_named_by_the_check(settings: dict[str, Any], id_: str, says: str) -> None:
    """A26: an identity function that cannot work at its position."""
    id_found, message, hint = findings(**settings)[0]
    assert id_found == f"profile_enrich.{id_}"
    assert says in message
    assert hint


def test_A26_an_identity_from_a_cookie_needs_no_user() -> None:
    """A26: a working identity function gives no error."""
    assert findings(MIDDLEWARE=[OURS], PROFILE_ENRICH={"CLIENT": client, "IDENTIFY": from_cookie("visitor")}) == []


@pytest.mark.long
def test_the_command_prints_it() -> None:
    """`manage.py check --tag profile_enrich`, in a process of its own, as a project runs it."""
    script = (
        "import json, sys\n"
        "from django.conf import settings\n"
        "settings.configure(**json.loads(sys.argv[1]))\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['manage.py', 'check'])\n"
    )
    settings = {
        "SECRET_KEY": "secret",
        "INSTALLED_APPS": ["profile_enrich.django"],
        "MIDDLEWARE": [SESSION, AUTH, OURS],
        "PROFILE_ENRICH": {"CLIENT": "tests.frameworks.test_django_checks.client", "BUDGET": "50ms"},
        "ROOT_URLCONF": "tests.frameworks.test_django_checks",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(settings)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert '?: (profile_enrich.E005) PROFILE_ENRICH["BUDGET"] must be a number of seconds' in done.stderr
    assert "HINT: Correct the value." in done.stderr


def test_the_command_is_content_with_a_good_set_up() -> None:
    output = io.StringIO()
    with override_settings(MIDDLEWARE=[SESSION, AUTH, OURS], PROFILE_ENRICH={"CLIENT": client}):
        call_command("check", "--tag", "profile_enrich", stdout=output)
    assert "no issues" in output.getvalue()
