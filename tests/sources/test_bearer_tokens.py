"""Tokens: one shared renewal before the expiry and after a refusal, and no secret in any output."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Generator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import (
    ConfigurationError,
    ProfileEnrichError,
    SourceAuthError,
    SourceConnectionError,
    SourceRateLimited,
    SourceResponseError,
    SourceTimeout,
    SourceUnavailable,
)
from profile_enrich.sources.bearer_tokens import ClientCredentials, IssuerToken, StaticToken, TokenAuth, token_expiry
from profile_enrich.sources.http import Transport, open_transport
from profile_enrich.testing import VendorServer, faults


@pytest.fixture(scope="module")
def server() -> Generator[VendorServer]:
    with VendorServer({"u1": {}}, client_secret="planted-secret", issuer_key="planted-issuer") as running:
        yield running


@pytest.fixture
def vendor(server: VendorServer) -> Generator[VendorServer]:
    server.heal()
    server.reset_calls()
    yield server
    server.heal()
    server.release()


@pytest.fixture
async def transport() -> AsyncGenerator[Transport]:
    opened = open_transport()
    yield opened
    await opened.aclose()


class Wall:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def credentials(vendor: VendorServer, **changes: Any) -> ClientCredentials:
    arguments: dict[str, Any] = {
        "token_url": vendor.token_url,
        "client_id": "client",
        "client_secret": "planted-secret",
        "tenant": "acme",
        **changes,
    }
    return ClientCredentials(**arguments)


def issuer(vendor: VendorServer, **changes: Any) -> IssuerToken:
    arguments: dict[str, Any] = {
        "key_id": "key/1",
        "issuer_token": "planted-issuer",
        "tenant": "acme",
        "base_url": vendor.amperity_url,
        **changes,
    }
    return IssuerToken(**arguments)


def jwt(claims: object) -> str:
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.s"


async def test_client_credentials_are_posted_as_a_form(vendor: VendorServer, transport: Transport) -> None:
    auth = credentials(vendor)
    token = await auth.token(transport, deadline=Deadline(5))
    assert await auth.token(transport, deadline=Deadline(5)) == token
    (call,) = vendor.calls
    assert (call.method, call.target) == ("POST", "/api/v0/oauth2/token")
    assert call.body == b"client_id=client&client_secret=planted-secret&grant_type=client_credentials"
    assert call.headers["content-type"] == "application/x-www-form-urlencoded"
    assert call.headers["x-amperity-tenant"] == "acme"


async def test_an_issuer_token_is_exchanged(vendor: VendorServer, transport: Transport) -> None:
    auth = issuer(vendor, lifetime=600)
    token = await auth.token(transport, deadline=Deadline(5))
    assert await auth.token(transport, deadline=Deadline(5)) == token
    (call,) = vendor.calls
    assert (call.method, call.target) == ("POST", "/api/v0/admin/api-keys/key%2F1/tokens")
    assert (call.headers["authorization"], call.headers["x-amperity-tenant"]) == ("Bearer planted-issuer", "acme")
    until = datetime.fromisoformat(json.loads(call.body)["expires-at"])
    assert 590 < until.timestamp() - datetime.now(until.tzinfo).timestamp() <= 601


async def test_a_token_is_renewed_before_it_expires(vendor: VendorServer, transport: Transport) -> None:
    clock = Wall()
    auth = credentials(vendor, clock=clock, margin=60)
    first = await auth.token(transport, deadline=Deadline(5))
    clock.now += 3600 - 61
    assert await auth.token(transport, deadline=Deadline(5)) == first
    clock.now += 1
    assert await auth.token(transport, deadline=Deadline(5)) != first
    assert vendor.call_count == 2


async def test_a_short_life_is_used_for_three_quarters(vendor: VendorServer, transport: Transport) -> None:
    clock = Wall()
    auth = credentials(vendor, clock=clock, margin=3600)
    vendor.script(faults.Respond(200, {"access_token": "t1", "expires_in": 40}))
    assert await auth.token(transport, deadline=Deadline(5)) == "t1"
    clock.now += 29
    assert await auth.token(transport, deadline=Deadline(5)) == "t1"
    clock.now += 1
    assert await auth.token(transport, deadline=Deadline(5)) != "t1"


async def test_without_expires_in_the_token_itself_says_when(vendor: VendorServer, transport: Transport) -> None:
    clock = Wall()
    auth = credentials(vendor, clock=clock)
    vendor.script(faults.Respond(200, {"access_token": jwt({"exp": clock.now + 400})}))
    await auth.token(transport, deadline=Deadline(5))
    clock.now += 339
    await auth.token(transport, deadline=Deadline(5))
    assert vendor.call_count == 1
    clock.now += 1
    vendor.script(faults.Respond(200, {"access_token": "opaque"}))
    assert await auth.token(transport, deadline=Deadline(5)) == "opaque"
    clock.now += 1e9  # its expiry is unknown: used until it is refused
    assert await auth.token(transport, deadline=Deadline(5)) == "opaque"


async def test_an_opaque_issued_token_lives_as_long_as_asked(vendor: VendorServer, transport: Transport) -> None:
    clock = Wall()
    auth = issuer(vendor, clock=clock, lifetime=1000)
    vendor.script(faults.Respond(201, {"token": "opaque"}), faults.Respond(200, {"access_token": "next"}))
    assert await auth.token(transport, deadline=Deadline(5)) == "opaque"
    clock.now += 941
    assert await auth.token(transport, deadline=Deadline(5)) == "next"


@pytest.mark.parametrize("make", [credentials, issuer])
async def test_L1_one_renewal_however_many_wait(vendor: VendorServer, transport: Transport, make: Any) -> None:
    vendor.always(faults.Latency(0.05))
    auth = make(vendor)
    tokens = await asyncio.gather(*(auth.token(transport, deadline=Deadline(5)) for _ in range(100)))
    assert len(set(tokens)) == 1
    assert vendor.call_count == 1
    # All calls are refused at once: again one renewal, and late calls use its result.
    again = await asyncio.gather(*(auth.token(transport, deadline=Deadline(5), refused=tokens[0]) for _ in range(100)))
    assert len(set(again)) == 1
    assert again[0] != tokens[0]
    assert await auth.token(transport, deadline=Deadline(5), refused=tokens[0]) == again[0]
    assert vendor.call_count == 2


async def test_L2_cancelled_waiters_never_cancel_the_renewal(vendor: VendorServer, transport: Transport) -> None:
    vendor.script(faults.Hang())
    auth = credentials(vendor)
    waiters = [asyncio.create_task(auth.token(transport, deadline=Deadline(5))) for _ in range(10)]
    await vendor.calls_reached(1)
    for waiter in waiters[:9]:
        waiter.cancel()
    with pytest.raises(SourceTimeout):
        await auth.token(transport, deadline=Deadline(0.02))
    vendor.release()
    assert await waiters[9]
    assert vendor.call_count == 1
    assert all(waiter.cancelled() for waiter in waiters[:9])


async def test_L2_a_renewal_that_nobody_waits_for_any_more_is_kept(vendor: VendorServer, transport: Transport) -> None:
    vendor.script(faults.Hang())
    auth = credentials(vendor)
    waiter = asyncio.create_task(auth.token(transport, deadline=Deadline(5)))
    await vendor.calls_reached(1)
    waiter.cancel()
    vendor.release()
    assert await auth.token(transport, deadline=Deadline(5))
    assert vendor.call_count == 1


async def test_L14_closing_ends_a_renewal(vendor: VendorServer, transport: Transport) -> None:
    vendor.script(faults.Hang())
    auth = credentials(vendor)
    waiter = asyncio.create_task(auth.token(transport, deadline=Deadline(5)))
    await vendor.calls_reached(1)
    await auth.aclose()
    with pytest.raises(SourceConnectionError, match="closed"):
        await waiter
    assert await auth.token(transport, deadline=Deadline(5))
    await auth.aclose()


@pytest.mark.parametrize("make", [credentials, issuer])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.Respond(401, {"error": "invalid_client"}), SourceAuthError),
        (faults.Respond(400, {"error": "invalid_client", "error_description": "No planted-secret"}), SourceAuthError),
        (faults.Respond(403, {"message": "no"}), SourceAuthError),
        (faults.RateLimited(3), SourceRateLimited),
        (faults.ServerError(), SourceUnavailable),
        (faults.Reset(), SourceConnectionError),
        (faults.Garbage(), SourceResponseError),
        (faults.WrongType(), SourceResponseError),
        (faults.Respond(200, {"something": "else"}), SourceResponseError),
        (faults.Respond(200, {"access_token": "two\nlines", "token": ""}), SourceResponseError),
        (faults.Respond(200, {"access_token": 5}), SourceResponseError),
    ],
    ids=repr,
)
async def test_a_failed_renewal_is_named_and_the_next_one_tries_again(
    vendor: VendorServer, transport: Transport, make: Any, fault: faults.Fault, kind: type[ProfileEnrichError]
) -> None:
    auth = make(vendor)
    vendor.always(fault)
    with pytest.raises(kind) as caught:
        await auth.token(transport, deadline=Deadline(5))
    assert "planted" not in str(caught.value) + repr(caught.value)
    vendor.heal()
    assert await auth.token(transport, deadline=Deadline(5))


@pytest.mark.parametrize(("make", "argument"), [(credentials, "token_url"), (issuer, "base_url")])
async def test_html_casts_doubt_on_the_url(
    vendor: VendorServer, transport: Transport, make: Any, argument: str
) -> None:
    vendor.script(faults.Respond(200, b"<html>Sign in</html>"))
    with pytest.raises(SourceResponseError, match=f"is HTML, not JSON; is {argument} the one of this API"):
        await make(vendor).token(transport, deadline=Deadline(5))


async def test_a_strange_life_is_refused(vendor: VendorServer, transport: Transport) -> None:
    vendor.script(faults.Respond(200, {"access_token": "t", "expires_in": "soon"}))
    with pytest.raises(SourceResponseError, match="expires_in"):
        await credentials(vendor).token(transport, deadline=Deadline(5))


def test_L9_a_token_serves_several_loops(vendor: VendorServer) -> None:
    auth = credentials(vendor)

    async def ask() -> str:
        transport = open_transport()
        token = await auth.token(transport, deadline=Deadline(5))
        await transport.aclose()
        return token

    assert asyncio.run(ask()) == asyncio.run(ask())
    assert vendor.call_count == 1


async def test_a_static_token_is_what_it_is(transport: Transport) -> None:
    auth = StaticToken(jwt({"exp": 12345}))
    assert auth.expires_at == 12345.0
    token = await auth.token(transport, deadline=Deadline(1))
    assert await auth.token(transport, deadline=Deadline(1), refused=token) == token
    await auth.aclose()
    assert StaticToken("opaque").expires_at is None


@pytest.mark.parametrize(
    "token",
    ["", "a.b", "a.!!!.c", "a.e30.c", jwt([1]), jwt({"exp": "x"}), jwt({"exp": True}), jwt({"exp": -1}), "a.é.c"],
)
def test_no_expiry(token: str) -> None:
    assert token_expiry(token) is None


@given(st.text())
def test_any_text_has_an_expiry_or_none(text: str) -> None:
    assert token_expiry(text) is None or "." in text
    assert token_expiry(f"a.{text}.b") is None or text


def test_A18_no_repr_shows_a_secret(vendor: VendorServer) -> None:
    for auth in (StaticToken("planted"), credentials(vendor), issuer(vendor)):
        assert isinstance(auth, TokenAuth)
        assert "planted" not in repr(auth) + str(auth)
        assert "planted" not in repr(vars(auth))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"token_url": "http://h.example/x"}, "token_url"),
        ({"client_id": ""}, "client_id"),
        ({"client_secret": "a\n"}, "client_secret"),
        ({"tenant": "a b"}, "tenant"),
        ({"margin": -1}, "margin"),
        ({"margin": "x"}, "margin"),
    ],
)
def test_wrong_client_credentials_name_the_argument(vendor: VendorServer, changes: Any, names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        credentials(vendor, **changes)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"key_id": ".."}, "key_id"),
        ({"issuer_token": ""}, "issuer_token"),
        ({"base_url": "x"}, "base_url"),
        ({"lifetime": 0}, "lifetime"),
        ({"lifetime": float("nan")}, "lifetime"),
        ({"lifetime": True}, "lifetime"),
    ],
)
def test_wrong_issuer_tokens_name_the_argument(vendor: VendorServer, changes: Any, names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        issuer(vendor, **changes)
