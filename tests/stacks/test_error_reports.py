"""Error reports of third-party tools contain no profile value, from our frames or the user's."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.stacks import needs

needs("sentry_sdk", "loguru", "structlog", "pythonjsonlogger", "rich")
needs("rollbar", "elasticapm", "posthog", "ddtrace", "django")

import django  # noqa: E402
import elasticapm  # noqa: E402
import posthog  # noqa: E402
import rich.console  # noqa: E402
import rich.pretty  # noqa: E402
import rich.traceback  # noqa: E402
import rollbar  # noqa: E402
import sentry_sdk  # noqa: E402
import structlog  # noqa: E402
from ddtrace.debugging._signal.utils import capture_pairs  # noqa: E402
from pythonjsonlogger.json import JsonFormatter  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from starlette.routing import Route  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from profile_enrich import Profile, ProfileClient, ProfileMiddleware, from_header, get_profile  # noqa: E402
from profile_enrich.templating import TemplateProfile  # noqa: E402
from tests.stacks.conftest import PEOPLE, VALUES  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
WHO = from_header("x-user", trusted=True)


async def untouched(request: Request) -> Response:
    raise ZeroDivisionError


async def whole(request: Request) -> Response:
    profile = await get_profile(request)
    held = {"profile": profile, "list": [profile], "record": profile._facts.record}
    raise ZeroDivisionError(len([profile.get("first_name"), held]))


async def touched(request: Request) -> Response:
    profile = await get_profile(request)
    attributes, tags = profile.attributes, profile["tags"]
    template = TemplateProfile(profile)
    held = {"profile": profile, "list": [profile], "record": profile._facts.record}
    state = request.state
    raise ZeroDivisionError(len([attributes, tags, template, held, state]))


def error_of(page: Callable[[Request], Any], client: ProfileClient) -> BaseException:
    """What the page raised, with the traceback through the middleware and the frames of all of them."""
    app = Starlette(routes=[Route("/", page)], middleware=[Middleware(ProfileMiddleware, client=client, identify=WHO)])
    with pytest.raises(ZeroDivisionError) as raised:
        TestClient(app).get("/", headers={"x-user": "u1"})
    return raised.value


def frames_of(error: BaseException) -> list[dict[str, Any]]:
    return [dict(frame.f_locals) for frame, _ in traceback.walk_tb(error.__traceback__)]


def by_sentry(error: BaseException) -> str:
    sent: list[Any] = []

    class Transport(sentry_sdk.transport.Transport):
        def capture_envelope(self, envelope: Any) -> None:
            sent.append(envelope.serialize().decode())

    for pii in (False, True):
        client = sentry_sdk.Client(
            dsn="http://key@127.0.0.1:9/1", transport=Transport, send_default_pii=pii, default_integrations=False,
            max_request_body_size="always", max_value_length=100_000,
        )  # fmt: skip
        with sentry_sdk.new_scope() as scope:
            scope.set_client(client)
            scope.set_context("profile", {"profile": PROFILES[0]} if PROFILES else {})
            sentry_sdk.capture_exception(error)
        client.close()
    assert len(sent) == 2
    assert "ZeroDivisionError" in sent[0]
    return "".join(sent)


PROFILES: list[Profile] = []


def by_traceback(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def by_rich(error: BaseException) -> str:
    out = io.StringIO()
    console = rich.console.Console(file=out, width=400)
    assert error.__traceback__ is not None
    shown = rich.traceback.Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
    console.print(shown)
    for frame in frames_of(error):
        console.print(rich.pretty.Pretty(frame, max_length=None))
    return out.getvalue()


def by_loguru(error: BaseException) -> str:
    from loguru import logger

    out = io.StringIO()
    handler = logger.add(out, diagnose=True, backtrace=True, level=0)
    logger.opt(exception=error).error("failed")
    logger.remove(handler)
    return out.getvalue()


def by_structlog(error: BaseException) -> str:
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=True, locals_max_string=10_000)
    renderers = [
        structlog.processors.JSONRenderer(),
        structlog.processors.KeyValueRenderer(),
        structlog.dev.ConsoleRenderer(),
    ]
    written: list[str] = []
    for renderer in renderers:
        event: Any = {"event": "failed", "exc_info": error, "profile": PROFILES[0] if PROFILES else None}
        if not isinstance(renderer, structlog.dev.ConsoleRenderer):  # which renders the exception itself
            event = structlog.processors.ExceptionRenderer(transform)(None, "error", event)
        written.append(str(renderer(None, "error", event)))
    return "".join(written)


def by_python_json_logger(error: BaseException) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter("%(message)s %(profile)s"))
    log = logging.Logger("planted")
    log.addHandler(handler)
    log.error("failed %s", PROFILES, exc_info=error, extra={"profile": PROFILES[0] if PROFILES else None})
    return out.getvalue()


def by_rollbar(error: BaseException, **settings: Any) -> str:
    sent: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollbar, "_initialized", False)
        patch.setattr(rollbar, "SETTINGS", copy.deepcopy(rollbar.SETTINGS))
        patch.setattr(rollbar, "send_payload", lambda payload, token: sent.append(payload))
        sizes = dict.fromkeys(rollbar.DEFAULT_LOCALS_SIZES, 1000)
        rollbar.init("token", "test", root=str(ROOT), **{"locals": {"enabled": True, "sizes": sizes}, **settings})
        rollbar.report_exc_info((type(error), error, error.__traceback__))
    assert len(sent) == 1
    return json.dumps(sent, default=repr)


def by_elastic_apm(error: BaseException, **settings: Any) -> str:
    sent: list[Any] = []

    class Client(elasticapm.Client):
        def queue(self, event_type: str, data: Any, flush: bool = False) -> None:
            sent.append((event_type, data))

        def check_server_version(self, **_: Any) -> bool:
            return True

    off: dict[str, Any] = {"central_config": False, "cloud_provider": "none", "metrics_interval": "0ms"}
    client = Client(service_name="shop", metrics_sets=[], server_version="8.0.0", **off, **settings)
    try:
        client.capture_exception((type(error), error, error.__traceback__), handled=False)
    finally:
        client.close()
    assert "error" in [kind for kind, _ in sent]
    return json.dumps(sent, default=repr)


def by_posthog(error: BaseException, *, code_variables: bool = True) -> str:
    sent: list[Any] = []
    client = posthog.Posthog(
        "key", host="http://127.0.0.1:9", send=False, before_send=sent.append,
        capture_exception_code_variables=code_variables, code_variables_mask_patterns=[],
    )  # fmt: skip
    client.capture_exception(error)
    client.shutdown()
    return json.dumps(sent, default=repr)


def by_datadog(error: BaseException) -> str:
    """As Exception Replay captures the variables of each frame, but three levels deeper."""
    return json.dumps([capture_pairs(frame.items(), level=5) for frame in frames_of(error)])


def by_django(error: BaseException) -> str:
    from django.conf import settings
    from django.views.debug import ExceptionReporter

    if not settings.configured:
        settings.configure(DEBUG=True, SECRET_KEY="of the tests")
        django.setup()
    reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
    return f"{reporter.get_traceback_html()}{reporter.get_traceback_text()}"


REPORTERS = [
    by_sentry, by_traceback, by_rich, by_loguru, by_structlog, by_python_json_logger, by_rollbar, by_elastic_apm,
    by_posthog, by_datadog, by_django,
]  # fmt: skip


WALK_EVERY_DICTIONARY = {by_rollbar, by_elastic_apm, by_posthog}
"""They ask no dictionary how to show it: what a handler has taken out of the profile is shown as any other value."""


@pytest.mark.parametrize("page", [untouched, whole, touched])
@pytest.mark.parametrize("reporter", REPORTERS)
@pytest.mark.filterwarnings("ignore:The send_default_pii option")
def test_A24_no_report_holds_a_value(
    reporter: Callable[[BaseException], str], page: Any, client: ProfileClient
) -> None:
    if page is touched and reporter in WALK_EVERY_DICTIONARY:
        pytest.skip("it walks every dictionary, also those that a handler takes out of the profile")
    PROFILES[:] = [asyncio.run(client.get("u1"))]
    error = error_of(page, client)
    report = reporter(error)
    assert "ZeroDivisionError" in report or "Profile" in report or "request" in report
    for value in VALUES:
        assert value not in report, report[max(0, report.index(value) - 300) : report.index(value) + 50]


@pytest.mark.parametrize(
    "reporter",
    [
        lambda error: by_rollbar(error, locals={"enabled": False}),
        lambda error: by_elastic_apm(error, collect_local_variables="off"),
        lambda error: by_posthog(error, code_variables=False),
    ],
    ids=["rollbar", "elastic_apm", "posthog"],
)
def test_A24_those_that_walk_every_dictionary_have_a_setting(
    reporter: Callable[[BaseException], str], client: ProfileClient
) -> None:
    """A24: the settings are those of docs/web-developers.md."""
    report = reporter(error_of(touched, client))
    assert "ZeroDivisionError" in report
    assert not any(value in report for value in VALUES)


def test_A24_datadog_shows_no_id_either_under_its_setting() -> None:
    """A24: it walks every slot. The setting is that of docs/web-developers.md, which it reads when it is imported."""
    code = """
import asyncio
from ddtrace.debugging._signal.utils import capture_value
from profile_enrich import MemorySource, ProfileClient
client = ProfileClient(MemorySource({"the-id": {"name": "Ann"}}))
profile = asyncio.run(client.get("the-id"))
print(capture_value([profile, profile.key, profile._facts.record, client], level=5))
"""
    setting = {"DD_DYNAMIC_INSTRUMENTATION_REDACTED_TYPES": "Profile,ProfileKey,Record,ProfileClient"}
    run = partial(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the-id" in run(env=dict(os.environ)).stdout
    assert "the-id" not in run(env={**os.environ, **setting}).stdout


@pytest.mark.filterwarnings("ignore:The send_default_pii option")
def test_A24_the_reporters_would_have_found_a_plain_dictionary() -> None:
    """Each of them shows the values of a dictionary in a frame, so that the test above can fail."""
    plain = dict(PEOPLE["u1"])
    try:
        len(plain) / 0
    except ZeroDivisionError as caught:
        error = caught
    found = [reporter.__name__ for reporter in REPORTERS if VALUES[0] in reporter(error)]
    assert set(found) >= {
        "by_sentry", "by_traceback", "by_rich", "by_loguru", "by_structlog", "by_rollbar", "by_elastic_apm",
        "by_posthog", "by_datadog", "by_django",
    }  # fmt: skip


def test_A24_starlettes_debug_page_holds_none(client: ProfileClient) -> None:
    app = Starlette(
        debug=True, routes=[Route("/", touched)],
        middleware=[Middleware(ProfileMiddleware, client=client, identify=WHO)],
    )  # fmt: skip
    page = TestClient(app, raise_server_exceptions=False).get("/", headers={"x-user": "u1", "accept": "text/html"})
    assert "ZeroDivisionError" in page.text
    assert not any(value in page.text for value in VALUES)


def test_A24_pytests_own_output_holds_none(tmp_path: Any) -> None:
    code = """
import asyncio
from profile_enrich import MemorySource, ProfileClient
def test_it():
    first, second = (chr(65) + "nn-" + "Planted", "planted" + "-tag")
    client = ProfileClient(MemorySource({"u1": {"name": first, "tags": [second], "home": {"x": second}}}))
    first = second = None
    profile = asyncio.run(client.get("u1"))
    attributes, tags, home, record = profile.attributes, profile["tags"], profile["home"], profile._facts.record
    assert profile == {"name": "x"}
"""
    (tmp_path / "test_planted.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--showlocals", "-vv", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert "1 failed" in ran.stdout
    assert "<Profile " in ran.stdout
    assert not any(value in ran.stdout for value in ("Ann-Planted", "planted-tag"))
