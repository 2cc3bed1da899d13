"""API keys, and the access tokens issued for them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError
from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.server.auth.api_keys import KeyRing
from profile_enrich.server.endpoints.amperity_tokens import TokenIssuer
from profile_enrich.store import LocalStore

from .helpers import KEYS, LIMITED, SECRET, STRANGER, Answer, amperity, api, ask, basic, bearer, build


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LocalStore(build(tmp_path_factory.mktemp("tokens"))) as store:
        yield api(store)


FORM = {"client_id": "k1", "client_secret": SECRET, "grant_type": "client_credentials"}


def oauth(app: ProfileAPI, tenant: str | None = "acme", **changes: str) -> Answer:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if tenant is not None:
        headers["X-Amperity-Tenant"] = tenant
    return ask(
        app, "/api/v0/oauth2/token", method="POST", headers=headers, body=urlencode({**FORM, **changes}).encode()
    )


def exchange(app: ProfileAPI, body: Any, *, key: str = "k1", secret: str = SECRET, tenant: str = "acme") -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {**bearer(secret), "amperity-tenant": tenant}
    return ask(app, f"/api/v0/admin/api-keys/{key}/tokens", method="POST", headers=headers, body=content)


def test_oauth_client_credentials(app: ProfileAPI) -> None:
    answer = oauth(app)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json) == {"access_token", "expires_in", "token_type"}
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 3600
    token = answer.json["access_token"]
    assert token.count(".") == 2
    assert ask(app, "/api/indexes", headers=amperity(token)).status == 200
    limited = oauth(app, client_id="k2", client_secret=LIMITED).json["access_token"]
    assert [item["name"] for item in ask(app, "/api/indexes", headers=amperity(limited)).json["data"]] == ["Users"]


def test_oauth_with_client_secret_basic(app: ProfileAPI) -> None:
    """RFC 6749, section 2.3.1: both parts are form-encoded, and a request uses one authentication method."""

    def grant(authorization: str, body: bytes = b"grant_type=client_credentials") -> Answer:
        headers = {
            "Authorization": authorization, "X-Amperity-Tenant": "acme",
            "content-type": "application/x-www-form-urlencoded",
        }  # fmt: skip
        return ask(app, "/api/v0/oauth2/token", method="POST", headers=headers, body=body)

    token = grant(basic("k1", SECRET)).json["access_token"]
    assert ask(app, "/api/indexes", headers=amperity(token)).status == 200
    assert grant(basic("k%31", f"secret-token%3A{SECRET}")).status == 200
    for wrong in (basic("k1", "wrong"), basic("k2", SECRET), basic("", "")):
        answer = grant(wrong)
        assert (answer.status, answer.json, answer.headers["www-authenticate"]) == (
            401, {"error": "invalid_client"}, "Basic",
        )  # fmt: skip
    both = f"grant_type=client_credentials&client_id=k1&client_secret={SECRET}".encode()
    for unclear in (grant(basic("k1", SECRET), both), grant("Basic !!!")):
        assert (unclear.status, unclear.json) == (400, {"error": "invalid_request"})


def test_a_token_is_for_amperitys_dialect_alone(app: ProfileAPI) -> None:
    token = oauth(app).json["access_token"]
    assert ask(app, "/api/v1/entities", headers=bearer(token)).status == 401


@pytest.mark.parametrize(
    ("changes", "tenant", "status"),
    [
        ({"client_secret": "wrong"}, "acme", 401),
        ({"client_secret": ""}, "acme", 401),
        ({"client_id": "k2"}, "acme", 401),
        ({"client_id": "nobody"}, "acme", 401),
        ({"client_id": "k3", "client_secret": STRANGER}, "acme", 401),
        ({"client_id": "k3", "client_secret": STRANGER}, "other", 401),
        ({}, "other", 401),
        ({}, None, 400),
        ({"grant_type": "password"}, "acme", 400),
    ],
)
def test_P2_wrong_credentials_get_no_token(
    app: ProfileAPI, changes: dict[str, str], tenant: str | None, status: int
) -> None:
    answer = oauth(app, tenant, **changes)
    assert answer.status == status
    if status == 401:
        assert answer.json == {"error": "invalid_client"}


def test_exchange_of_the_issuer_token(app: ProfileAPI) -> None:
    answer = exchange(app, {"expires-at": "2099-01-01T00:00:00Z"})
    assert answer.status == 400  # not within a year
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    answer = exchange(app, {"expires-at": until})
    assert answer.status == 200
    assert answer.json["expires-at"] == until
    assert ask(app, "/api/indexes", headers=amperity(answer.json["access-token"])).status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", {}, {"expires-at": 5}, {"expires-at": "soon"}, {"expires-at": "2020-01-01T00:00:00Z"},
     {"expires-at": "2030-01-01T00:00:00"}, {"expires-at": "0001-01-01T00:00:00+23:00"}, b"[" * 50_000],
)  # fmt: skip
def test_P3_exchange_with_a_bad_body(app: ProfileAPI, body: Any) -> None:
    answer = exchange(app, body)
    assert answer.status == 400
    assert answer.json["status"] == 400


@pytest.mark.parametrize(
    "changes",
    [{"secret": "wrong"}, {"key": "k2"}, {"key": "nobody"}, {"tenant": "other"}, {"secret": LIMITED},
     {"key": "k3", "secret": STRANGER}, {"key": "%ff"}],
)  # fmt: skip
def test_P2_exchange_with_wrong_credentials(app: ProfileAPI, changes: dict[str, str]) -> None:
    assert exchange(app, {"expires-at": "2099-01-01T00:00:00Z"}, **changes).status in (400, 401)


def test_bodies_that_are_too_long_and_other_methods(app: ProfileAPI) -> None:
    assert exchange(app, b"x" * 70_000).status == 413
    answer = ask(app, "/api/v0/oauth2/token", headers=amperity())
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert ask(app, "/api/v0/oauth2/other", headers=amperity()).status == 404


def test_without_authentication_there_are_no_tokens(app: ProfileAPI) -> None:
    answer = oauth(ProfileAPI(app.store, no_auth=True))
    assert answer.status == 400


def test_a_client_that_goes_away(app: ProfileAPI) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v0/oauth2/token",
        "raw_path": b"/api/v0/oauth2/token",
        "headers": [],
    }
    with pytest.raises(StopIteration):
        app(scope, receive, send).send(None)
    assert sent[0]["status"] == 413


def issuer(now: list[float], keys: list[ApiKey] | None = None) -> TokenIssuer:
    return TokenIssuer(b"s" * 32, KeyRing(keys or KEYS), "acme", clock=lambda: now[0])


def test_P2_tokens_expire_and_die_with_their_key() -> None:
    now = [1000.0]
    token = issuer(now).issue(KEYS[0], 2000).encode()
    assert issuer(now).verify(token) == KEYS[0]
    now[0] = 2000.0
    assert issuer(now).verify(token) is None
    now[0] = 1000.0
    assert issuer(now, KEYS[1:]).verify(token) is None
    rotated = ApiKey.from_secret("another-secret-of-k1", id="k1", workspace="acme")
    assert issuer(now, [rotated]).verify(token) is None
    assert TokenIssuer(b"t" * 32, KeyRing(KEYS), "acme", clock=lambda: 1000.0).verify(token) is None


def encode(content: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).rstrip(b"=")


def test_P2_forged_tokens() -> None:
    now = [1000.0]
    good = issuer(now).issue(KEYS[0], 2000).encode()
    header, payload, signature = good.split(b".")
    claims = json.loads(base64.urlsafe_b64decode(payload + b"=="))
    assert claims == {"sub": "k1", "tnt": "acme", "iat": 1000, "exp": 2000}
    for forged in (
        b"", b".", b"..", b"a.b.c", header, good + b"x", good[:-1],
        encode({"alg": "none", "typ": "JWT"}) + b"." + payload + b".",
        encode({"alg": "none", "typ": "JWT"}) + b"." + payload + b"." + signature,
        header + b"." + encode({**claims, "exp": 9999}) + b"." + signature,
        header + b"." + encode({**claims, "sub": "k2"}) + b"." + signature,
        header + b"." + encode({**claims, "sub": ["k1"]}) + b"." + signature,
        header + b"." + encode([]) + b"." + signature,
        header + b".%%%." + signature,
        header + b"." + base64.urlsafe_b64encode(b"[" * 30_000).rstrip(b"=") + b"." + signature,
    ):  # fmt: skip
        assert issuer(now).verify(forged) is None
    # Signed with the key's digest alone, which an outsider may know, without the store's secret.
    signed = header + b"." + payload
    outsider = hmac.digest(KEYS[0].digest, signed, "sha256")
    assert issuer(now).verify(signed + b"." + base64.urlsafe_b64encode(outsider).rstrip(b"=")) is None


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_P3_any_bytes_are_no_token(raw: bytes) -> None:
    assert issuer([0.0]).verify(raw) is None


def test_keys_are_generated_and_hold_no_secret() -> None:
    key, secret = ApiKey.generate(workspace="acme", entities=["Users"])
    other, other_secret = ApiKey.generate()
    assert secret != other_secret
    assert key.id != other.id
    assert key.digest == hashlib.sha256(secret.encode()).digest()
    assert key.entities == frozenset({"Users"})
    assert key == ApiKey.from_secret(f"secret-token:{secret}", workspace="acme", entities=["Users"])
    shown = repr(key)
    assert secret not in shown
    assert key.digest.hex() not in shown
    assert repr(key.digest) not in shown
    assert not key.digest.hex().startswith(key.id.removeprefix("key-"))


@pytest.mark.parametrize("secret", ["", "short", "x" * 15, "has a space in it", "né" * 10, "line\nbreak-in-the-secret"])
def test_secrets_that_are_refused(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="at least 16") as caught:
        ApiKey.from_secret(secret)
    assert not secret or secret not in str(caught.value)


def test_what_counts_is_what_follows_the_prefix() -> None:
    key = ApiKey.from_secret("secret-token:" + "x" * 16)
    assert key.digest == hashlib.sha256(b"x" * 16).digest()
    with pytest.raises(ConfigurationError, match="not counting a leading 'secret-token:'; this one has 15;"):
        ApiKey.from_secret("secret-token:" + "x" * 15)


def test_keys_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two keys have the id 'a'"):
        KeyRing([ApiKey.from_secret("x" * 16, id="a"), ApiKey.from_secret("y" * 16, id="a")])
    with pytest.raises(ConfigurationError, match="the keys 'a' and 'b' have the same secret"):
        KeyRing([ApiKey.from_secret("x" * 16, id="a"), ApiKey.from_secret("x" * 16, id="b")])
    with pytest.raises(ConfigurationError, match="1 to 64"):
        ApiKey.from_secret("x" * 16, id="a b")
    with pytest.raises(ConfigurationError, match="workspace of a key"):
        ApiKey.from_secret("x" * 16, workspace="a\r\nb")
    with pytest.raises(ConfigurationError, match="not one string"):
        ApiKey.from_secret("x" * 16, entities="Users")
    with pytest.raises(ConfigurationError, match="32 bytes"):
        ApiKey("a", b"short")
