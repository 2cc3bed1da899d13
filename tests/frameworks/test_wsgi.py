"""Any WSGI application behind the middleware."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from profile_enrich import ConfigurationError, Reason, from_cookie, from_header
from profile_enrich.web.encoding_hint import HINT
from profile_enrich.wsgi import PROFILE, WSGIProfileMiddleware, profile_of, refresh_profile
from tests.helpers import ScriptedSource, client_of, own_records


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    profile = profile_of(environ)
    if path == "/boom":
        raise RuntimeError("boom")
    text = b"" if path in ("/plain", "/lazy", "/file", "/late") else f"Hello {profile.get('id', 'nobody')}".encode()
    headers = [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60")]
    if path == "/lazy":
        return _lazily(profile, start_response, headers)
    start_response("200 OK", headers)
    if path == "/file":
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"file"))
        return wrapped
    if path == "/late":
        return (part for part in [f"Hello {profile.get('id', 'nobody')}".encode()])
    return [text]


def _lazily(profile: Any, start_response: Callable[..., Any], headers: list[tuple[str, str]]) -> Iterator[bytes]:
    text = f"Hello {profile.get('id', 'nobody')}".encode()
    start_response("200 OK", headers)
    yield text


class Response:
    def __init__(self, app: Any, path: str, **environ: Any) -> None:
        self.environ: dict[str, Any] = {
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "wsgi.file_wrapper": FileWrapper,
            **environ,
        }
        setup_testing_defaults(self.environ)
        self.environ["QUERY_STRING"] = ""
        self.headers: dict[str, str] = {}
        self.result: Any = app(self.environ, self._start)
        self.text = b"".join(self.result).decode()
        self.sealed_before_close = self.environ[PROFILE].get("id") if path == "/read" else None
        if hasattr(self.result, "close"):
            self.result.close()

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        self.headers = dict(headers)
        return lambda data: None


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource()


@pytest.fixture
def app(source: ScriptedSource) -> Iterator[WSGIProfileMiddleware]:
    app = WSGIProfileMiddleware(
        validator(application), client=client_of(source), identify=from_cookie("who"), budget=5.0, exclude=["/static"]
    )
    yield app
    app.close()


@pytest.mark.parametrize("path", ["/read", "/lazy"])
def test_A13_a_page_that_reads_it_is_private(app: WSGIProfileMiddleware, path: str) -> None:
    """A13: also where `start_response` is called when the body is iterated."""
    for user in ("u1", None, "u2"):
        cookie = {} if user is None else {"HTTP_COOKIE": f"who={user}"}
        response = Response(validator(app), path, **cookie)
        assert response.text == f"Hello {user or 'nobody'}"
        assert response.headers["Cache-Control"] == "private, max-age=60"
        assert response.headers["vary"] == "Cookie"


def test_A13_a_page_that_does_not_read_it_is_untouched(app: WSGIProfileMiddleware, source: ScriptedSource) -> None:
    """A13: no lookup is made."""
    assert Response(app, "/plain", HTTP_COOKIE="who=u1").headers == {
        "Content-Type": "text/plain",
        "Cache-Control": "max-age=60",
    }
    assert Response(app, "/static/a", HTTP_COOKIE="who=u1").text == "Hello nobody"
    assert source.calls == []


def test_A16_a_read_after_the_headers_is_logged(app: WSGIProfileMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    """A16: the page is served."""
    with caplog.at_level(logging.WARNING):
        assert Response(app, "/late", HTTP_COOKIE="who=u1").text == "Hello u1"
    assert "could not be set" in own_records(caplog)[0].getMessage()


def test_A23_the_request_ends_when_the_server_closes_the_body(app: WSGIProfileMiddleware) -> None:
    """A23: afterwards the profile is empty."""
    response = Response(app, "/read", HTTP_COOKIE="who=u1")
    assert response.sealed_before_close == "u1"
    assert response.environ[PROFILE].get("id") is None


def test_A6_an_exception_passes_as_it_is(app: WSGIProfileMiddleware) -> None:
    """A6: the server sees the same one."""
    with pytest.raises(RuntimeError, match="boom"):
        Response(app, "/boom")


def test_A30_an_identity_that_changes_is_looked_up_again() -> None:
    def page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        held = profile_of(environ)
        before = held["id"]
        environ["HTTP_X_USER"] = "u2"
        return [f"{before} {refresh_profile(environ)['id']} {held['id']}".encode()]

    app = WSGIProfileMiddleware(page, client=client_of(ScriptedSource()), identify=from_header("x-user", trusted=True))
    assert Response(app, "/", HTTP_X_USER="u1").text == "u1 u2 u2"
    assert refresh_profile({}).reason is Reason.NOT_LOOKED_UP


def test_what_cannot_be_encoded_says_what_to_call() -> None:
    def page(environ: Any, start_response: Any) -> list[bytes]:
        return [json.dumps(profile_of(environ)).encode()]

    with pytest.raises(TypeError) as raised:
        Response(WSGIProfileMiddleware(page, client=client_of(ScriptedSource()), identify=from_cookie("who")), "/")
    assert raised.value.__notes__ == [HINT]


def test_a_file_stays_the_servers_own_wrapper() -> None:
    """Servers send a file with one system call where they are given their own wrapper."""
    app = WSGIProfileMiddleware(application, client=client_of(ScriptedSource()), identify=from_cookie("who"))
    environ: dict[str, Any] = {"PATH_INFO": "/file", "wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    assert type(app(environ, lambda *a: lambda data: None)) is FileWrapper


def test_A20_bytes_of_a_header_are_those_that_were_sent() -> None:
    """A20: PEP 3333 passes each byte as a character."""
    source = ScriptedSource()
    app = WSGIProfileMiddleware(application, client=client_of(source), identify=from_header("X-Who", trusted=True))
    Response(app, "/read", HTTP_X_WHO="\xe9")
    assert [key.value for key in source.calls] == ["\xe9"]
    app.close()


def test_A25_it_wraps_an_application() -> None:
    """A25: with the argument's name."""
    with pytest.raises(ConfigurationError, match="app must be a WSGI application"):
        WSGIProfileMiddleware(None, client=client_of(ScriptedSource()), identify=from_cookie("who"))  # type: ignore[arg-type]


def test_without_the_middleware_the_profile_is_empty() -> None:
    assert not profile_of({})
