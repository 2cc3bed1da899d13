"""Who is in session."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from itsdangerous import TimestampSigner
from starlette.authentication import SimpleUser, UnauthenticatedUser
from starlette.requests import HTTPConnection

from profile_enrich import (
    ConfigurationError,
    InvalidKeyError,
    MissingExtraError,
    ProfileKey,
    first_of,
    from_cookie,
    from_header,
    from_session,
    from_signed_cookie,
    from_user,
    hashed_email,
)
from profile_enrich.web.identity import Identity, vary_of


def connection(headers: list[tuple[str, str]] | None = None, **scope: Any) -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers or []]
    return HTTPConnection({"type": "http", "headers": raw, **scope})


def test_from_session() -> None:
    identify = from_session("user_id")
    assert identify(connection(session={"user_id": "u1"})) == "u1"
    assert identify(connection(session={"user_id": 478060})) == "478060"
    assert identify(connection(session={"user_id": 0})) == "0"
    for session in ({}, {"user_id": None}, {"user_id": ""}):
        assert identify(connection(session=session)) is None
    assert identify(connection()) is None
    assert from_session("email", type="email")(connection(session={"email": "a@b"})) == ProfileKey("a@b", "email")
    assert vary_of(identify) == ("Cookie",)


@pytest.mark.parametrize("value", [True, 1.5, ["u1"], {"id": "u1"}])
def test_from_session_refuses_what_is_no_key(value: Any) -> None:
    with pytest.raises(InvalidKeyError):
        from_session()(connection(session={"user_id": value}))


def test_from_user() -> None:
    identify = from_user("display_name")
    assert identify(connection(user=SimpleUser("u1"))) == "u1"
    assert identify(connection(user=UnauthenticatedUser())) is None
    assert identify(connection()) is None
    assert vary_of(identify) == ("Authorization", "Cookie")
    assert vary_of(from_user("pk", vary=["Cookie"])) == ("Cookie",)


def test_from_cookie() -> None:
    identify = from_cookie("visitor")
    assert identify(connection([("Cookie", "visitor=v1; other=x")])) == "v1"
    assert identify(connection([("Cookie", "visitor=")])) is None
    assert identify(connection()) is None


def test_from_signed_cookie() -> None:
    signer = TimestampSigner("secret")
    identify = from_signed_cookie("customer", "secret")
    signed = signer.sign("u1").decode()
    assert identify(connection([("Cookie", f"customer={signed}")])) == "u1"
    for cookie in ("u1", signed + "x", "u2" + signed[2:], "", TimestampSigner("other").sign("u1").decode()):
        assert identify(connection([("Cookie", f"customer={cookie}")])) is None
    assert from_signed_cookie("customer", "secret", max_age=-1)(connection([("Cookie", f"customer={signed}")])) is None
    salted = TimestampSigner("secret", salt="x").sign("u1").decode()
    assert identify(connection([("Cookie", f"customer={salted}")])) is None
    assert from_signed_cookie("customer", "secret", salt="x")(connection([("Cookie", f"customer={salted}")]))


def test_A18_a_signed_cookies_secret_is_not_shown() -> None:
    """A18: no secret in reprs."""
    assert "hush" not in repr(from_signed_cookie("customer", "hush"))


def test_a_signed_cookie_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "itsdangerous", None)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[session\]"):
        from_signed_cookie("customer", "secret")


def test_from_header_only_when_trusted() -> None:
    with pytest.raises(ConfigurationError, match="trusted=True"):
        from_header("X-User", trusted=False)
    identify = from_header("X-User", trusted=True)
    assert identify(connection([("X-User", "u1")])) == "u1"
    assert identify(connection([("X-User", "u1"), ("x-user", "admin")])) is None
    assert identify(connection()) is None
    assert vary_of(identify) == ("X-User",)


class TestFirstOf:
    async def test_takes_the_first_that_knows_somebody(self) -> None:
        identify = first_of(from_session(), from_user("display_name"), from_cookie("visitor"))
        everybody = connection([("Cookie", "visitor=v1")], session={"user_id": "u1"}, user=SimpleUser("u2"))
        assert identify(everybody) == "u1"
        assert identify(connection([("Cookie", "visitor=v1")], session={})) == "v1"
        assert identify(connection()) is None
        assert vary_of(identify) == ("Cookie", "Authorization")
        assert getattr(identify, "requires", ()) == ("session", "user")
        assert repr(identify).startswith("first_of(")

    async def test_takes_coroutines_too(self) -> None:
        async def later(_: HTTPConnection) -> Identity:
            return None

        async def known(_: HTTPConnection) -> Identity:
            return "u9"

        answer: Any = first_of(from_session(), later, from_cookie("visitor"), known)(connection())
        assert await answer == "u9"
        answer = first_of(known, from_cookie("visitor"))(connection())
        assert await answer == "u9"

    def test_refuses_nothing_and_what_is_not_callable(self) -> None:
        for choices in ((), ("user_id",)):
            with pytest.raises(ConfigurationError, match="first_of"):
                first_of(*choices)


@pytest.mark.parametrize("make", [from_session, from_user, from_cookie, lambda name: from_header(name, trusted=True)])
@pytest.mark.parametrize("name", ["", None, 5])
def test_names_must_be_names(make: Any, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="non-empty string"):
        make(name)


def test_a_secret_must_not_be_empty() -> None:
    with pytest.raises(ConfigurationError, match="secret_key"):
        from_signed_cookie("customer", "")


def test_hashed_email_is_the_vendors_form() -> None:
    """Amperity: `SHA256(UPPER(TRIM(email)))` in hex."""
    expected = hashlib.sha256(b"ALICE@EXAMPLE.COM").hexdigest()
    assert hashed_email("  Alice@Example.com ") == expected
