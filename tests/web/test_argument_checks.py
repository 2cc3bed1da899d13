"""Each integration checks its arguments at once, and its errors name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from profile_enrich import (
    ConfigurationError,
    MemorySource,
    ProfileMiddleware,
    first_of,
    from_cookie,
    from_header,
    from_session,
    from_signed_cookie,
    from_user,
    honour_gpc,
)
from profile_enrich.web.argument_checks import is_excluded
from profile_enrich.web.blocking_lookup import BlockingConfig
from profile_enrich.wsgi import WSGIProfileMiddleware
from tests.helpers import ScriptedSource, client_of


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def flask(**options: Any) -> object:
    pytest.importorskip("flask", reason="Flask is not installed: pip install flask")
    from profile_enrich.flask import ProfileEnrich

    return ProfileEnrich(**options)


def litestar(**options: Any) -> object:
    pytest.importorskip("litestar", reason="Litestar is not installed: pip install litestar")
    from profile_enrich.litestar import ProfilePlugin

    return ProfilePlugin(**options)


INTEGRATIONS: dict[str, Callable[..., object]] = {
    "asgi": lambda **options: ProfileMiddleware(asgi, **options),
    "wsgi": lambda **options: WSGIProfileMiddleware(wsgi, **options),
    "flask": flask,
    "litestar": litestar,
    "django": BlockingConfig,
}


class BadVary:
    vary = "Cookie"

    def __call__(self, connection: Any) -> None: ...


@pytest.mark.parametrize("make", INTEGRATIONS.values(), ids=INTEGRATIONS)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("client", "x"), ("client", None), ("identify", "user_id"), ("identify", None), ("identify", BadVary()),
        ("identify", from_session), ("identify", first_of), ("consent", honour_gpc), ("client", MemorySource),
        ("budget", -1), ("budget", "50ms"), ("budget", True), ("budget", float("nan")),
        ("exclude", "/static"), ("exclude", ["static"]), ("exclude", [None]), ("exclude", 7),
        ("consent", True), ("consent", "yes"), ("consent", BadVary()),
        ("server_timing", "false"), ("server_timing", None),
        ("vary_on", "Cookie"), ("vary_on", b"Cookie"), ("vary_on", [None]), ("vary_on", ["X User"]), ("vary_on", [""]),
        ("vary_on", ["Cookie\r\nX: 1"]), ("vary_on", 7),
    ],
)  # fmt: skip
def test_A25_what_cannot_be_used_is_refused_by_name(make: Callable[..., object], argument: str, value: Any) -> None:
    good: dict[str, Any] = {"client": client_of(ScriptedSource()), "identify": from_cookie("who")}
    make(**good)
    with pytest.raises(ConfigurationError, match=f"^{argument}"):
        make(**{**good, argument: value})


def test_a_function_without_a_module_is_one_of_the_users() -> None:
    """For example a function defined by `exec`."""
    names: dict[str, Any] = {}
    exec("def who(connection): return None", {"__name__": None}, names)
    assert names["who"].__module__ is None
    for make in INTEGRATIONS.values():
        make(client=client_of(ScriptedSource()), identify=names["who"])


@pytest.mark.parametrize("name", ["asgi", "flask", "litestar"])
@pytest.mark.parametrize("value", ["my profile", "", None, 7])
def test_A25_the_attribute_is_a_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="attribute"):
        INTEGRATIONS[name](client=client_of(ScriptedSource()), identify=from_cookie("who"), attribute=value)


MAKERS: dict[str, Callable[..., object]] = {
    "session": from_session,
    "user": from_user,
    "cookie": from_cookie,
    "signed cookie": lambda name, **options: from_signed_cookie(name, "secret", **options),
    "header": lambda name, **options: from_header(name, trusted=True, **options),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_A25_an_identity_function_is_made_of_names(make: Callable[..., object]) -> None:
    make("user", type="email")
    for name in ("", " ", None, 5, b"user"):
        with pytest.raises(ConfigurationError, match=r"^(name|attribute)"):
            make(name)
    for type_ in ("", None, 5, b"id", "x" * 257, "two\nlines"):
        with pytest.raises(ConfigurationError, match=r"^type must be a short name"):
            make("user", type=type_)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: from_user("pk", vary="Cookie"), "vary"),
        (lambda: from_user("pk", vary=[None]), "vary"),  # type: ignore[list-item]
        (lambda: from_header("X User", trusted=True), "name"),
        (lambda: from_cookie("a=b"), "name"),
        (lambda: from_cookie("a;b"), "name"),
        (lambda: from_signed_cookie("a b", "secret"), "name"),
        (lambda: from_signed_cookie("visitor", "secret", max_age="3600"), "max_age"),  # type: ignore[arg-type]
        (lambda: from_signed_cookie("visitor", "secret", max_age=0), "max_age"),
    ],
)
def test_A25_what_no_request_can_have_is_refused(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{argument}"):
        make()


@pytest.mark.parametrize(("path", "excluded"), [("/", True), ("/shop", False), ("/static", True), ("/static/a", True)])
def test_A4_the_root_excludes_the_root_alone(path: str, excluded: bool) -> None:
    config = BlockingConfig(client=client_of(ScriptedSource()), identify=from_cookie("who"), exclude=["/", "/static/"])
    assert config.excludes(path) is excluded
    assert is_excluded(path, config.exclude) is excluded
