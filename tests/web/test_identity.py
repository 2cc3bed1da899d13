"""Identity functions: who is signed in."""

from __future__ import annotations

import hashlib
import time
import uuid
from types import SimpleNamespace
from typing import Any, cast

import pytest
from itsdangerous import TimestampSigner
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, UnauthenticatedUser
from starlette.datastructures import Secret
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Route

from profile_enrich import (
    ConfigurationError,
    InvalidKeyError,
    MissingExtraError,
    ProfileKey,
    ProfileMiddleware,
    first_of,
    from_cookie,
    from_header,
    from_session,
    from_signed_cookie,
    from_user,
    hashed_email,
)
from profile_enrich._utils.log_once import LogOnce
from profile_enrich.web.argument_checks import vary_of
from profile_enrich.web.identity_functions import Identity
from tests.helpers import ScriptedSource, client_of, own_records
from tests.web.helpers import ask, read


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


def test_from_signed_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    identify = from_signed_cookie("customer", "secret")
    signed = identify.sign("u1")
    assert identify(connection([("Cookie", f"customer={signed}")])) == "u1"
    for cookie in ("u1", signed + "x", "u2" + signed[2:], "", TimestampSigner("other").sign("u1").decode()):
        assert identify(connection([("Cookie", f"customer={cookie}")])) is None
    with monkeypatch.context() as later:
        later.setattr(TimestampSigner, "get_timestamp", lambda _: int(time.time()) + 61)
        old = connection([("Cookie", f"customer={signed}")])
        assert from_signed_cookie("customer", "secret", max_age=60)(old) is None
        assert from_signed_cookie("customer", "secret", max_age=None)(old) == "u1"
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


def test_a_secret_must_not_be_empty() -> None:
    with pytest.raises(ConfigurationError, match="secret_key"):
        from_signed_cookie("customer", "")


def test_hashed_email_is_the_vendors_form() -> None:
    """Amperity: `SHA256(UPPER(TRIM(email)))` in hex."""
    expected = hashlib.sha256(b"ALICE@EXAMPLE.COM").hexdigest()
    assert hashed_email("  Alice@Example.com ") == expected


class TestSignedCookies:
    def test_it_reads_what_it_signs(self) -> None:
        identify = from_signed_cookie("customer", "secret")
        assert (
            identify(connection([("Cookie", f"a=1; customer={identify.sign('josé@example.org')}")]))
            == "josé@example.org"
        )

    def test_A26_what_was_signed_for_another_cookie_is_not_accepted(self, caplog: pytest.LogCaptureFixture) -> None:
        other = from_signed_cookie("basket", "secret").sign("u1")
        identify = from_signed_cookie("customer", "secret")
        for _ in range(2):
            assert identify(connection([("Cookie", f"customer={other}")])) is None
        assert [record.getMessage() for record in caplog.records if "another secret or salt" in record.getMessage()]
        assert len(caplog.records) == 1
        assert other not in caplog.text
        assert "u1" not in caplog.text

    def test_cookies_of_a_bare_signer_are_kept_with_its_salt(self) -> None:
        signed = TimestampSigner("secret").sign("u1").decode()
        cookie = connection([("Cookie", f"customer={signed}")])
        assert from_signed_cookie("customer", "secret", salt="itsdangerous.Signer")(cookie) == "u1"
        assert from_signed_cookie("customer", "secret")(cookie) is None

    def test_several_secrets_rotate(self) -> None:
        old, new = from_signed_cookie("customer", "old"), from_signed_cookie("customer", Secret("new"))
        both = from_signed_cookie("customer", [Secret("old"), "new"])
        for signer in (old, new, both):
            assert both(connection([("Cookie", f"customer={signer.sign('u1')}")])) == "u1"
        assert new(connection([("Cookie", f"customer={both.sign('u1')}")])) == "u1"
        assert old(connection([("Cookie", f"customer={both.sign('u1')}")])) is None

    @pytest.mark.parametrize(
        "secret", [None, "", "  ", "None", b"bytes", 7, [], [None], ["good", ""], ("good", b"x"), Secret(""), str(None)]
    )
    def test_A25_a_secret_is_text(self, secret: Any) -> None:
        with pytest.raises(ConfigurationError, match="secret_key") as raised:
            from_signed_cookie("customer", secret)
        assert "good" not in str(raised.value)

    @pytest.mark.parametrize("salt", ["", 7, b"x"])
    def test_A25_a_salt_is_text(self, salt: Any) -> None:
        with pytest.raises(ConfigurationError, match="salt"):
            from_signed_cookie("customer", "secret", salt=salt)


@pytest.mark.parametrize(
    "cookies",
    [["who=u1; who=u2"], ["who=u1", "who=u2"], ["who=u1; a=b; who=u1"], ["who=; who=u1"], ["who=u1;who=u2;who=u3"]],
)
def test_A26_two_cookies_of_one_name_are_nobody(cookies: list[str], caplog: pytest.LogCaptureFixture) -> None:
    from profile_enrich.web import request_values

    request_values._once = LogOnce()
    headers = [("Cookie", value) for value in cookies]
    signed = from_signed_cookie("who", "secret")
    for identify in (from_cookie("who"), signed):
        assert identify(connection(headers)) is None
    assert caplog.text.count("the cookie who twice") == 1
    assert from_cookie("a")(connection([("Cookie", "a=1; xa=2; a2=3; b")])) == "1"


@pytest.mark.parametrize("identify", [from_session(), from_user("display_name")])
@pytest.mark.parametrize(
    ("cookies", "known"),
    [
        (["session=a"], True),
        (["session=a; other=b"], True),
        (["xsession=a; session=b; other=session=c"], True),
        (["session=a; session=b"], False),
        (["session=a", "session=a"], False),
        (["session=a;session=b"], False),
    ],
)
def test_A26_a_session_whose_cookie_is_there_twice_is_nobodys(identify: Any, cookies: list[str], known: bool) -> None:
    headers = [("Cookie", value) for value in cookies]
    found = identify(connection(headers, session={"user_id": "u1"}, user=SimpleUser("u1")))
    assert found == ("u1" if known else None)


def test_A26_the_sessions_cookie_may_have_another_name() -> None:
    twice = connection([("Cookie", "sid=a; sid=b")], session={"user_id": "u1"})
    assert from_session()(twice) == "u1"
    assert from_session(cookie="sid")(twice) is None
    with pytest.raises(ConfigurationError, match=r"^cookie must be"):
        from_session(cookie="a b")
    with pytest.raises(ConfigurationError, match=r"^cookie must be"):
        from_user(cookie="")


@pytest.mark.parametrize(("sent", "logged"), [("josé".encode(), False), ("josé".encode("latin-1"), True)])
def test_A26_a_header_is_utf_8_or_else_latin_1_and_says_so(
    sent: bytes, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    from profile_enrich.web import request_values

    request_values._once = LogOnce()
    identify = from_header("X-User", trusted=True)
    for _ in range(2):
        assert identify(HTTPConnection({"type": "http", "headers": [(b"x-user", sent)]})) == "josé"
    assert caplog.text.count("is not UTF-8") == int(logged)


def test_uuids_count_as_their_text() -> None:
    number = uuid.UUID("6f1e7a52-6a2f-4b53-9d43-7a9c7d6f0c11")
    assert from_session()(connection(session={"user_id": number})) == str(number)
    assert from_user("pk")(connection(user=SimpleNamespace(is_authenticated=True, pk=number))) == str(number)


@pytest.mark.parametrize(
    ("identify", "what"), [(from_session(), "SessionMiddleware"), (from_user("pk"), "Authentication")]
)
@pytest.mark.parametrize("attach", ["eager", "lazy"])
def test_A26_what_an_identity_function_needs_and_does_not_find_is_logged_once(
    identify: Any, what: str, attach: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = ProfileMiddleware(
        Starlette(routes=[Route("/", read)]), client=client_of(ScriptedSource()), identify=identify, attach=attach
    )
    for _ in range(3):
        assert ask(app).json()["reason"] == "anonymous"
    logged = [record.getMessage() for record in own_records(caplog)]
    assert len(logged) == 1
    assert what in logged[0]


def test_A26_authentication_that_is_inside_is_there_for_a_lazy_lookup(caplog: pytest.LogCaptureFixture) -> None:
    class Basic(AuthenticationBackend):
        async def authenticate(self, conn: HTTPConnection) -> Any:
            return AuthCredentials(), SimpleUser(conn.headers["x-user"])

    inside = Starlette(routes=[Route("/", read)], middleware=[Middleware(AuthenticationMiddleware, backend=Basic())])
    for attach, who in (("eager", None), ("lazy", "u1")):
        identify = from_user("display_name")
        app = ProfileMiddleware(inside, client=client_of(ScriptedSource()), identify=identify, attach=cast(Any, attach))
        assert ask(app).json()["id"] == who
    assert len(own_records(caplog)) == 1
