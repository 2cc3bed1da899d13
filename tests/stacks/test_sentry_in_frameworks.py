"""Sentry's own integrations of Django, Flask, Starlette and FastAPI: their reports hold no value of a profile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.stacks import needs

needs("sentry_sdk", "django", "flask", "fastapi")

import django  # noqa: E402
import sentry_sdk  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import path  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from flask import Flask, render_template_string  # noqa: E402
from sentry_sdk.integrations.django import DjangoIntegration  # noqa: E402
from sentry_sdk.integrations.fastapi import FastApiIntegration  # noqa: E402
from sentry_sdk.integrations.flask import FlaskIntegration  # noqa: E402
from sentry_sdk.integrations.starlette import StarletteIntegration  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402
from werkzeug.test import Client as WsgiClient  # noqa: E402

from profile_enrich import ProfileClient, ProfileMiddleware, from_header  # noqa: E402
from profile_enrich.fastapi import CurrentProfile  # noqa: E402
from profile_enrich.flask import ProfileEnrich, current_profile  # noqa: E402
from tests.stacks.conftest import VALUES  # noqa: E402

WHO = from_header("x-user", trusted=True)
SENT: list[str] = []


class Transport(sentry_sdk.transport.Transport):
    def capture_envelope(self, envelope: Any) -> None:
        SENT.append(envelope.serialize().decode())


@pytest.fixture(params=[False, True], ids=["without pii", "with pii"])
def sentry(request: pytest.FixtureRequest) -> Iterator[None]:
    SENT.clear()
    integrations = [DjangoIntegration(), FlaskIntegration(), StarletteIntegration(), FastApiIntegration()]
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", transport=Transport, integrations=integrations, default_integrations=False,
        auto_enabling_integrations=False, send_default_pii=request.param, max_value_length=100_000,
        max_request_body_size="always", traces_sample_rate=1.0,
    )  # fmt: skip
    yield
    sentry_sdk.get_global_scope().set_client(None)


def fails(profile: Any) -> Any:
    attributes, tags = profile.attributes, profile["tags"]
    held = {"profile": profile, "list": [profile, attributes]}
    raise ZeroDivisionError(len([tags, held]))


def django_page(request: HttpRequest) -> HttpResponse:
    return fails(request.profile)


async def django_apage(request: HttpRequest) -> HttpResponse:
    return fails(await request.aprofile())


def django_template(request: HttpRequest) -> HttpResponse:
    from django.template import engines

    template = engines["django"].from_string("{{ profile.first_name }}{% if profile.tags %}{{ fails.now }}{% endif %}")
    return HttpResponse(template.render({"fails": Raises()}, request))


class Raises:
    @property
    def now(self) -> Any:
        raise ZeroDivisionError


urlpatterns = [path("page", django_page), path("apage", django_apage), path("template", django_template)]


@contextlib.contextmanager
def django_handler(client: ProfileClient, kind: Callable[[], Any]) -> Iterator[Any]:
    if not settings.configured:
        settings.configure(SECRET_KEY="of the tests", DEBUG=False)
        django.setup()
    processor = "profile_enrich.django.context_processors.profile"
    with override_settings(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False, PROFILE_ENRICH={"CLIENT": client, "IDENTIFY": WHO},
        MIDDLEWARE=["profile_enrich.django.DjangoProfileMiddleware"], DEBUG_PROPAGATE_EXCEPTIONS=False,
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates",
                    "OPTIONS": {"context_processors": [processor]}}],
    ):  # fmt: skip
        yield kind()


def wsgi_django(client: ProfileClient) -> Iterator[Callable[[str], int]]:
    with django_handler(client, WSGIHandler) as app:
        yield lambda page: WsgiClient(app).get(f"/{page}", headers={"x-user": "u1"}).status_code


def asgi_django(client: ProfileClient) -> Iterator[Callable[[str], int]]:
    with django_handler(client, ASGIHandler) as app:
        browser = TestClient(app, raise_server_exceptions=False)
        yield lambda page: browser.get(f"/{page}", headers={"x-user": "u1"}).status_code


def flask(client: ProfileClient) -> Iterator[Callable[[str], int]]:
    app = Flask(__name__)
    ProfileEnrich(app, client=client, identify=WHO)
    app.add_url_rule("/page", view_func=lambda: fails(current_profile), endpoint="page")
    template = "{{ profile.first_name }}{{ fails.now }}"
    app.add_url_rule("/template", "template", lambda: render_template_string(template, fails=Raises()))
    yield lambda page: app.test_client().get(f"/{page}", headers={"x-user": "u1"}).status_code


def fastapi(client: ProfileClient) -> Iterator[Callable[[str], int]]:
    app = FastAPI()

    @app.get("/page")
    async def page(profile: CurrentProfile) -> None:
        fails(profile)

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO)
    browser = TestClient(app, raise_server_exceptions=False)
    yield lambda page: browser.get(f"/{page}", headers={"x-user": "u1"}).status_code


@pytest.mark.parametrize(
    ("framework", "page"),
    [
        (wsgi_django, "page"), (wsgi_django, "template"), (asgi_django, "page"), (asgi_django, "apage"),
        (asgi_django, "template"), (flask, "page"), (flask, "template"), (fastapi, "page"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The send_default_pii option")
def test_A24_no_report_holds_a_value(framework: Any, page: str, sentry: None, client: ProfileClient) -> None:
    for ask in framework(client):
        assert ask(page) == 500
    report = "".join(SENT)
    assert "ZeroDivisionError" in report
    assert '"vars"' in report, "the frames are there with their variables"
    for value in VALUES:
        assert value not in report, report[max(0, report.index(value) - 300) : report.index(value) + 50]


def test_A24_traces_that_record_the_arguments_of_handlers_hold_no_value(client: ProfileClient) -> None:
    """A24: Logfire writes down the arguments of each FastAPI handler, by methods such as `to_dict` where they exist."""
    needs("logfire")
    import logfire
    from logfire.testing import SimpleSpanProcessor, TestExporter

    exporter = TestExporter()
    traces = logfire.configure(
        local=True, send_to_logfire=False, console=False, additional_span_processors=[SimpleSpanProcessor(exporter)]
    )
    app = FastAPI()

    @app.get("/")
    async def home(profile: CurrentProfile) -> dict[str, object]:
        traces.info("hello", profile=profile, held={"list": [profile]})
        return {"hello": profile.get("first_name")}

    app.add_middleware(ProfileMiddleware, client=client, identify=WHO)
    with traces.instrument_fastapi(app):
        answer = TestClient(app).get("/", headers={"x-user": "u1"})
    assert "Ann-Planted" in answer.text
    spans = str(exporter.exported_spans_as_dict())
    assert "fastapi.arguments.values" in spans
    assert "<Profile " in spans
    assert not any(value in spans for value in VALUES)
