"""The embedded Profile API as an application: set-up, status, lifespan, failures, logs, arbitrary bytes (P3)."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError, StoreError
from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.store import LocalStore

from .helpers import KEYS, LIMITED, ODD_ID, SECRET, USERS, Answer, amperity, api, ask, bearer, build, served


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def app(path: Path) -> Any:
    with LocalStore(path) as store:
        yield api(store)


def test_P6_it_needs_a_key_or_to_be_told(path: Path) -> None:
    none: list[list[ApiKey] | None] = [None, []]
    for keys in none:
        with pytest.raises(ConfigurationError, match="needs at least one key"):
            ProfileAPI(path, keys=keys)
    with pytest.raises(ConfigurationError, match="contradict"):
        ProfileAPI(path, keys=KEYS, no_auth=True)
    with pytest.raises(ConfigurationError, match="several workspaces"):
        ProfileAPI(path, keys=KEYS)
    with pytest.raises(ConfigurationError, match="every request would be rejected"):
        ProfileAPI(path, keys=KEYS, workspace="third")
    with pytest.raises(StoreError):
        ProfileAPI(path / "nothing", keys=KEYS[:1])


def test_without_authentication(path: Path) -> None:
    with LocalStore(path) as store:
        app = ProfileAPI(store, no_auth=True)
        assert ask(app, "/api/v1/entities/1/record?record_id=u7").json == {"data": USERS[7]}
        version = {"api-version": "2025-07-31"}
        assert ask(app, "/api/indexes", headers=version).status == 400
        assert ask(app, "/api/indexes", headers={**version, "amperity-tenant": "any"}).status == 200
        assert ask(app, "/status").status == 200


def test_health_says_nothing(app: ProfileAPI) -> None:
    answer = ask(app, "/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_status_counts_requests_by_kind(path: Path) -> None:
    with LocalStore(path) as store:
        app = api(store)
        assert ask(app, "/status").status == 401
        for target in ("/api/v1/entities/1/record?record_id=u7", "/api/v1/entities/1/record?record_id=none"):
            ask(app, target, headers=bearer())
        ask(app, "/api/indexes", headers=amperity())
        ask(app, "/elsewhere")
        status = ask(app, "/status", headers=bearer()).json
        assert status["generation"] == 1
        assert [(item["name"], item["rows"]) for item in status["collections"]] == [
            ("Users", len(USERS)),
            ("Orders", 1),
            ("Wide", 1),
        ]
        assert status["collections"][0]["age_seconds"] >= 0
        assert status["requests"] == {"status": 1, "census.record": 2, "amperity.indexes": 1, "unknown": 1}
        assert status["responses"] == {"2xx": 2, "4xx": 3}
        assert app.requests["census.record"] == 2
        limited = ask(app, "/status", headers=bearer(LIMITED)).json
        assert [item["name"] for item in limited["collections"]] == ["Users"]


@pytest.mark.parametrize(
    "target", ["/", "", "/nope", "/healthz/x", "/api", "/api/", "/api/v2/entities", "*", "http://x/api/v1/entities"]
)
def test_unknown_paths(app: ProfileAPI, target: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        answer = ask(app, target, method=method, headers=bearer())
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


async def test_lifespan_and_other_scopes(path: Path) -> None:
    app = api(path)
    assert ask(app, "/api/v1/entities/1/record?record_id=u7", headers=bearer()).status == 200
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    incoming[:] = [{"type": "websocket.connect"}]
    await app({"type": "websocket"}, receive, send)
    assert sent[-1] == "websocket.close"
    await app({"type": "something else"}, receive, send)
    assert len(sent) == 3
    with LocalStore(path) as store:
        lent = api(store)
        assert store.get("Users", "u1") is not None
        incoming[:] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        await lent({"type": "lifespan"}, receive, send)
        assert len(store._open) == 1  # not the application's to close


def test_a_store_that_fails_is_503_in_the_vendors_envelope(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = build(tmp_path)
    with LocalStore(path) as store:
        app = api(store)
        index = store.collection("Users").index_id
        for file in path.glob("*.db"):
            file.unlink()
        census = ask(app, "/api/v1/entities/1/record?record_id=u7", headers=bearer())
        assert (census.status, census.json["error"]["code"]) == (503, "unavailable")
        assert str(path) not in census.body.decode()
        assert ask(app, f"/api/indexes/{index}/profiles", headers=amperity()).json["status"] == 503
    assert "the store cannot be read" in caplog.text


def test_a_bug_is_500_in_the_vendors_envelope_and_quotes_nothing(
    app: ProfileAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted-id")

    monkeypatch.setattr(LocalStore, "get_payload", fail)
    answer = ask(app, "/api/v1/entities/1/record?record_id=planted-id", headers=bearer())
    assert (answer.status, answer.json["error"]["code"]) == (500, "internal")
    assert "planted-id" not in answer.body.decode() + caplog.text
    assert "RuntimeError in the answer to a census.record request" in caplog.text


def test_P2_logs_show_no_id_and_no_key(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (None, "profile_enrich", "profile_enrich.server", "profile_enrich.server.access"):
        caplog.set_level(logging.DEBUG, logger=name)  # a test that serves in this process may have set another one
    with LocalStore(path) as store:
        app = api(store, access_log=True)
        ask(app, "/api/v1/entities/1/record?record_id=planted-id", headers=bearer())
        ask(app, "/planted-id?planted-id", headers={"Authorization": "Bearer planted-id"})
    lines = [record.getMessage() for record in caplog.records if record.name == "profile_enrich.server.access"]
    assert re.fullmatch(r"census\.record 404 \d+\.\d ms", lines[0])
    assert re.fullmatch(r"unknown 404 \d+\.\d ms", lines[1])
    assert "planted-id" not in caplog.text
    assert SECRET not in caplog.text


# --- P3: arbitrary bytes ---

_PIECES = st.sampled_from(
    [b"/", b"api", b"v1", b"v0", b"indexes", b"entities", b"1", b"2", b"record", b"profiles", b"{index}", b"u7", b"..",
     b"oauth2", b"token", b"admin", b"api-keys", b"k1", b"tokens", b"%2F", b"%2e%2e", b"%00", b"%ff", b"%", b"%zz",
     b";", b"*", b"healthz", b"\\", b"//", b"\xff", b"'", b'"', b" OR 1=1"]
)  # fmt: skip
_QUERY = st.sampled_from(
    [b"&", b"=", b"?", b"record_id", b"record_id=", b"limit=", b"next_token=", b"with_total=", b"filter[tier]=",
     b"filter[", b"filter%5B", b"]", b"api_version=", b"2025-07-31", b"u7", b"gold", b"true", b"25", b"-1", b"%",
     b"%ff", b"%00", b"+", b"\xff", b"#", b"null", b"AAAA", b"99999999999999999999"]
)  # fmt: skip
_PATHS = st.one_of(
    st.binary(max_size=60),
    st.lists(_PIECES, max_size=10).map(b"".join),
    st.lists(_PIECES, max_size=8).map(b"/".join),
    st.sampled_from(
        [b"api/v1/entities/1/record", b"api/indexes/{index}/profiles", b"api/indexes", b"api/indexes/{index}"]
    ),
    st.binary(max_size=30).map(lambda raw: b"api/indexes/{index}/profiles/" + raw),
    st.binary(max_size=30).map(lambda raw: b"api/v1/entities/" + raw + b"/record"),
)
_QUERIES = st.one_of(
    st.binary(max_size=60),
    st.lists(_QUERY, max_size=10).map(b"".join),
    st.binary(max_size=30).map(lambda raw: b"record_id=" + raw),
)
_METHODS = st.sampled_from(["GET", "GET", "GET", "POST", "HEAD", "PUT", "X"])
KNOWN = {user["id"] for user in USERS} | {"o1", "w"}


def check_answer(answer: Answer, method: str) -> None:
    """Check that a response is a vendor's error envelope, or data that the request may see."""
    assert answer.status in {200, 400, 401, 403, 404, 405, 413}, answer
    assert answer.headers["content-type"] == "application/json"
    if method != "HEAD" and answer.status >= 400:
        body = answer.json
        envelope = body.get("error")
        if isinstance(envelope, dict):
            assert set(envelope) == {"code", "message"}
        elif envelope is None:
            assert body["status"] == answer.status
        else:
            assert envelope in ("invalid_client", "unsupported_grant_type")  # RFC 6749


@pytest.mark.long
@given(path=_PATHS, query=_QUERIES, method=_METHODS, authorized=st.booleans(), body=st.binary(max_size=50))
@settings(max_examples=1500, deadline=None)
def test_P3_any_bytes_give_a_4xx_or_what_was_asked_for(
    app: ProfileAPI, path: bytes, query: bytes, method: str, authorized: bool, body: bytes
) -> None:
    index = app.store.collection("Users").index_id.encode()
    target = b"/" + path.replace(b"{index}", index) + (b"?" + query if query else b"")
    headers = amperity() if authorized else {}
    answer = ask(app, target, method=method, headers=headers, body=body)
    check_answer(answer, method)
    if not authorized and target.partition(b"?")[0].rstrip(b"/") != b"/healthz":
        assert answer.status >= 400


@given(record_id=st.text(min_size=1, max_size=30) | st.sampled_from(sorted(KNOWN)))
@settings(max_examples=300, deadline=None)
def test_P3_an_id_finds_its_own_record_or_none(app: ProfileAPI, record_id: str) -> None:
    """In both dialects and every spelling of the URL; never another record."""
    from urllib.parse import quote, quote_plus

    try:
        encoded = {quote(record_id, safe=""), quote_plus(record_id)}
    except UnicodeEncodeError:
        return
    users = {user["id"] for user in USERS}
    for text in encoded:
        answer = ask(app, f"/api/v1/entities/1/record?record_id={text}", headers=bearer())
        assert answer.status == (200 if record_id in users else 404)
        if answer.status == 200:
            assert answer.json["data"]["id"] == record_id
    index = app.store.collection("Users").index_id
    answer = ask(app, f"/api/indexes/{index}/profiles/{quote(record_id, safe='')}", headers=amperity())
    assert answer.status == (200 if record_id in users else 404)
    if answer.status == 200:
        assert answer.json["id"] == record_id


def raw_request(address: tuple[str, int], target: bytes) -> bytes:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(
            b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + SECRET.encode()
            + b"\r\namperity-tenant: acme\r\napi-version: 2025-07-31\r\n\r\n"
        )  # fmt: skip
        parts: list[bytes] = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.long
def test_P3_any_bytes_over_a_real_socket(path: Path) -> None:
    """Request lines that no client sends, to a real server: a response, never a 500."""
    with LocalStore(path) as store, served(api(store)) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        address = (host, int(port))
        index = store.collection("Users").index_id.encode()

        @given(path=_PATHS, query=_QUERIES)
        @settings(max_examples=200, deadline=None)
        def hammer(path: bytes, query: bytes) -> None:
            target = b"/" + path.replace(b"{index}", index) + b"?" + query
            answer = raw_request(address, target)
            assert re.match(rb"HTTP/1\.1 (200|4\d\d) ", answer), answer[:100]

        hammer()
        odd = b"%61%2Fb%20%3F%26%23%2B%25%C3%A9%00%0A.."
        assert ODD_ID.encode().split(b"\0")[0][:3] in raw_request(
            address, b"/api/indexes/" + index + b"/profiles/" + odd
        )
        assert b'"id":"u7"' in raw_request(address, b"/api/v1/entities/1/record?record_id=u7")


def test_a_key_from_a_secret_serves(path: Path) -> None:
    with LocalStore(path) as store:
        app = ProfileAPI(store, keys=[ApiKey.from_secret(SECRET)])
        assert ask(app, "/api/v1/entities", headers=bearer()).status == 200
        headers = amperity(tenant="default")
        assert ask(app, "/api/indexes", headers=headers).status == 200
