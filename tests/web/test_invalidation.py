"""The invalidation webhook, called as ASGI and through a real server."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.datastructures import Secret
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message

from profile_enrich import ConfigurationError, ProfileClient, ProfileKey, Status
from profile_enrich.errors import SharedCacheUnavailable
from profile_enrich.sources.base import Found
from profile_enrich.testing.clock import ManualClock
from profile_enrich.web.invalidation import ProfileInvalidation, sign
from profile_enrich.web.invalidation_payload import InvalidationPayload, MalformedPayload, parse_changes
from tests.helpers import ScriptedSource, client_of, found, until

SECRET = "the-first-secret-of-all"
OTHER = "the-second-secret-of-all"
NOW = 1_700_000_000
PLANTED = "ann.planted@shop.example"


def app_of(client: ProfileClient, **arguments: Any) -> ProfileInvalidation:
    return ProfileInvalidation(client, **{"secret": SECRET, "clock": ManualClock(NOW), **arguments})


def body_of(**members: Any) -> bytes:
    return json.dumps(members).encode()


def headers_of(body: bytes, *, secret: str = SECRET, timestamp: int = NOW) -> dict[str, str]:
    return {"content-type": "application/json", **sign(secret, body, timestamp)}


async def post(
    app: ASGIApp, body: bytes, headers: dict[str, str] | None = None, *, path: str = "/", method: str = "POST"
) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test") as http:
        return await http.request(method, path, content=body, headers=headers_of(body) if headers is None else headers)


async def drive(app: ASGIApp, messages: list[Message], headers: dict[str, str], *, kind: str = "http") -> list[Message]:
    """Delivers the messages one by one, and blocks after the last one."""
    sent: list[Message] = []
    waiting = list(messages)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await app({"type": kind, "method": "POST", "path": "/", "headers": raw}, receive, send)
    return sent


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def cached(client: ProfileClient, *keys: str | ProfileKey) -> list[bool]:
    return [client.peek(key) is not None for key in keys]


# --- what a call does -------------------------------------------------------------------------------------------------


async def test_keys_tags_and_counts() -> None:
    def answer(key: ProfileKey) -> Found:
        return Found(found(id=key.value).record, tags=frozenset({"vip"} if key.value == "u3" else ()))

    client = client_of(ScriptedSource(answer))
    email = ProfileKey("x", "email")
    for key in ("u1", "u2", "u3", email):
        await client.get(key)
    app = app_of(client)
    response = await post(app, body_of(keys=["u1", {"type": "email", "value": "x"}, "unheard of"], tags=["vip", "old"]))
    assert (response.status_code, response.json()) == (200, {"keys": 3, "tags": 2, "all": False, "repeated": False})
    assert await cached(client, "u1", "u2", "u3", email) == [False, True, False, False]
    response = await post(app, body_of(all=True))
    assert response.json() == {"keys": 0, "tags": 0, "all": True, "repeated": False}
    assert client.stats().entries == 0
    assert (await client.lookup("u2")).status is Status.MISS


async def test_L6_a_load_under_way_is_not_kept() -> None:
    source = ScriptedSource()
    source.gate = asyncio.Event()
    client = client_of(source)
    waiting = asyncio.create_task(client.lookup("u1"))
    await until(lambda: len(source.calls) == 1)
    assert (await post(app_of(client), body_of(keys=["u1"]))).status_code == 200
    source.gate.set()
    await waiting
    assert client.peek("u1") is None


async def test_nothing_to_do_is_not_a_fault() -> None:
    response = await post(app_of(client_of(ScriptedSource())), body_of(keys=[]))
    assert response.json() == {"keys": 0, "tags": 0, "all": False, "repeated": False}


async def test_a_repeated_call_is_answered_and_not_carried_out_again() -> None:
    client = client_of(ScriptedSource())
    app = app_of(client, secret=[SECRET, OTHER])
    body = body_of(all=True)
    assert (await post(app, body)).json()["repeated"] is False
    await client.get("u1")
    upper = headers_of(body)
    upper["X-Profile-Signature"] = "sha256=" + upper["X-Profile-Signature"].removeprefix("sha256=").upper()
    for headers in (headers_of(body), upper, headers_of(body, secret=OTHER)):
        response = await post(app, body, headers)
        assert (response.status_code, response.json()["repeated"]) == (200, True)
    assert client.peek("u1") is not None
    assert (await post(app, body, headers_of(body, timestamp=NOW + 1))).json()["repeated"] is False
    assert client.peek("u1") is None


async def test_the_memory_of_calls_is_bounded() -> None:
    app = app_of(client_of(ScriptedSource()), remember=3)
    bodies = [body_of(keys=[str(number)]) for number in range(5)]
    for body in bodies:
        assert (await post(app, body)).json()["repeated"] is False
    assert [(await post(app, body)).json()["repeated"] for body in bodies[2:]] == [True] * 3
    assert (await post(app, bodies[0])).json()["repeated"] is False


async def test_a_call_that_failed_may_come_again() -> None:
    app = app_of(client_of(ScriptedSource()))
    body = body_of(keys=[7])
    assert [(await post(app, body)).status_code for _ in range(2)] == [400, 400]


async def test_many_keys_leave_the_loop_to_others() -> None:
    client = client_of(ScriptedSource())
    body = body_of(keys=[str(number) for number in range(5_000)], tags=[str(number) for number in range(1_000)])
    turns = 0
    done = False

    async def others() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    response = await post(app_of(client), body)
    done = True
    await task
    assert response.json()["keys"] == 5_000
    assert turns >= 40  # yields to the loop after each 250 keys read, and each 250 removed


# --- who may call -----------------------------------------------------------------------------------------------------


def test_sign_is_hmac_sha256_over_timestamp_dot_body() -> None:
    expected = hmac.new(SECRET.encode(), b"1700000000." + b'{"all":true}', hashlib.sha256).hexdigest()
    assert sign(SECRET, b'{"all":true}', NOW) == {
        "X-Profile-Timestamp": "1700000000",
        "X-Profile-Signature": f"sha256={expected}",
    }
    assert sign(Secret(SECRET), b"", NOW) == sign(SECRET, b"", NOW)
    assert abs(int(sign(SECRET, b"")["X-Profile-Timestamp"]) - time.time()) < 5


async def test_both_secrets_of_a_rotation_are_accepted() -> None:
    app = app_of(client_of(ScriptedSource()), secret=(Secret(SECRET), OTHER))
    body = body_of(all=True)
    for secret in (SECRET, OTHER):
        assert (await post(app, body, headers_of(body, secret=secret))).status_code == 200
    assert (await post(app, body, headers_of(body, secret="another-secret-altogether"))).status_code == 401


@pytest.mark.parametrize(("off", "status"), [(0, 200), (300, 200), (-300, 200), (301, 401), (-301, 401), (9**9, 401)])
async def test_the_replay_window_is_open_both_ways(off: int, status: int) -> None:
    body = body_of(all=True)
    response = await post(app_of(client_of(ScriptedSource())), body, headers_of(body, timestamp=NOW + off))
    assert response.status_code == status


async def test_every_refusal_for_lack_of_a_signature_is_the_same() -> None:
    client = client_of(ScriptedSource())
    await client.get("u1")
    app = app_of(client)
    body = body_of(all=True)
    good = headers_of(body)
    bad = [
        {"content-type": "application/json"},
        good | {"X-Profile-Signature": ""},
        good | {"X-Profile-Signature": good["X-Profile-Signature"].removeprefix("sha256=")},
        good | {"X-Profile-Signature": "sha512=" + "0" * 64},
        good | {"X-Profile-Signature": "sha256=" + "0" * 64},
        good | {"X-Profile-Signature": good["X-Profile-Signature"] + "00"},
        good | {"X-Profile-Timestamp": ""},
        good | {"X-Profile-Timestamp": f"{NOW}.0"},
        good | {"X-Profile-Timestamp": f"0{NOW}"},
        good | {"X-Profile-Timestamp": f"-{NOW}"},
        good | {"X-Profile-Timestamp": "9" * 4_000},
        good | {"X-Profile-Timestamp": str(NOW + 1)},
        good | {"X-Profile-Timestamp": str(NOW - 301)},
        headers_of(b"another body"),
    ]
    answers = {(await post(app, body, headers)).content for headers in bad}
    twice = [*good.items(), ("X-Profile-Signature", good["X-Profile-Signature"])]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test") as http:
        response = await http.post("/", content=body, headers=twice)
    assert response.status_code == 401
    assert response.headers["www-authenticate"]
    assert answers == {response.content}
    assert response.json()["error"]["code"] == "unauthorized"
    assert client.peek("u1") is not None


def test_one_bit_changed_anywhere_is_refused() -> None:
    # A body with its signature reaches the parser; with one bit changed it never does.
    async def scenario(body: bytes, changed: str, where: int, bit: int) -> None:
        app = app_of(client_of(ScriptedSource()))
        headers = headers_of(body)
        untouched = await drive(app, [part(body)], headers)
        assert untouched[0]["status"] in {200, 400}
        sent = bytearray(body)
        if changed == "body":
            sent = sent or bytearray(b"\0")
            sent[where % len(sent)] ^= 1 << bit
        else:
            text = bytearray(headers[changed].encode())
            # Not the bit for upper and lower case: `AB` and `ab` are the same signature.
            text[where % len(text)] ^= 1 << (bit if bit < 5 else 4)
            headers[changed] = text.decode("latin-1")
        answer = await drive(app, [part(bytes(sent))], headers)
        assert answer[0]["status"] == 401

    with asyncio.Runner() as runner:

        @settings(max_examples=150, deadline=None)
        @given(
            body=st.binary(max_size=300),
            changed=st.sampled_from(["body", "X-Profile-Signature", "X-Profile-Timestamp"]),
            where=st.integers(min_value=0),
            bit=st.integers(0, 7),
        )
        def prove(body: bytes, changed: str, where: int, bit: int) -> None:
            runner.run(scenario(body, changed, where, bit))

        prove()


# --- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_get_405(method: str) -> None:
    response = await post(app_of(client_of(ScriptedSource())), b"", method=method)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": "Application/JSON"}, 200),
        ({"content-encoding": "identity"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-encoding": "gzip"}, 415),
    ],
)
async def test_only_plain_json_is_accepted(headers: dict[str, str], status: int) -> None:
    body = body_of(all=True)
    response = await post(app_of(client_of(ScriptedSource())), body, headers_of(body) | headers)
    assert response.status_code == status
    assert status == 200 or response.json()["error"]["code"] == "unsupported_media_type"


async def test_a_large_body_is_refused_by_its_length_and_while_it_streams() -> None:
    app = app_of(client_of(ScriptedSource()), max_body=100)
    body = b" " * 88 + b'{"all":true}'
    assert (await post(app, body)).status_code == 200
    response = await post(app, body + b" ")
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
    # Without a length, or with a wrong one, reading stops at the first byte over the limit.
    for length in ({}, {"content-length": "5"}, {"content-length": "many"}):
        sent = await drive(app, [part(b"x" * 60, True), part(b"x" * 60, True)], {**headers_of(body), **length})
        assert sent[0]["status"] == 413
    # Rejected by its length, without reading it.
    assert (await drive(app, [], {**headers_of(body), "content-length": "9" * 40}))[0]["status"] == 413


async def test_a_body_in_parts_is_put_together() -> None:
    body = body_of(keys=["u1"])
    sent = await drive(
        app_of(client_of(ScriptedSource())),
        [part(bytes([byte]), True) for byte in body] + [part(b"")],
        headers_of(body),
    )
    assert sent[0]["status"] == 200


async def test_a_body_that_does_not_arrive_gets_408() -> None:
    app = app_of(client_of(ScriptedSource()), body_timeout=0.05)
    started = time.monotonic()
    sent = await drive(app, [part(b"{", True)], headers_of(b"{}"))
    assert sent[0]["status"] == 408
    assert time.monotonic() - started < 8


async def test_a_caller_who_goes_away_gets_no_answer() -> None:
    app = app_of(client_of(ScriptedSource()))
    assert await drive(app, [part(b"{", True), {"type": "http.disconnect"}], headers_of(b"{}")) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        ('{"all": true}'.encode("utf-16"), "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"all": ' + b"1" * 5_000 + b"}", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "must have keys, tags or all"),
        (b'{"key": ["u1"]}', "a member other than"),
        (b'{"all": 1}', "all must be true or false"),
        (b'{"all": "true"}', "all must be true or false"),
        (b'{"keys": "u1"}', "keys must be an array"),
        (b'{"keys": null}', "keys must be an array"),
        (b'{"keys": {"u1": 1}}', "keys must be an array"),
        (b'{"keys": ["u1", 2]}', "keys[1] must be a string"),
        (b'{"keys": [["u1"]]}', "keys[0] must be a string"),
        (b'{"keys": [{"type": "email"}]}', "keys[0] must be a string"),
        (b'{"keys": [{"value": "x", "typ": "email"}]}', "keys[0] must be a string"),
        (b'{"keys": ["", "u1"]}', "keys[0]: a profile key must not be empty"),
        (b'{"keys": ["u1", "\\ud800"]}', "keys[1]: a profile key must be valid Unicode"),
        (b'{"keys": [{"value": 7}]}', "keys[0]: a profile key must be a string"),
        (b'{"keys": [{"value": "x", "type": null}]}', "keys[0]: the type"),
        (b'{"keys": ["' + b"x" * 2_049 + b'"]}', "keys[0]: a profile key has at most"),
        (b'{"tags": "vip"}', "tags must be an array"),
        (b'{"tags": ["vip", ""]}', "tags[1] must be a string"),
        (b'{"tags": [3]}', "tags[0] must be a string"),
    ],
)
async def test_a_body_that_makes_no_sense_gets_400_with_its_place(body: bytes, says: str) -> None:
    client = client_of(ScriptedSource())
    await client.get("u1")
    response = await post(app_of(client), body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_request"
    assert says in response.json()["error"]["message"]
    assert client.peek("u1") is not None  # all or nothing


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
    | st.fixed_dictionaries({"value": st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)}, optional={
        "type": st.sampled_from(["id", "email"])}),
    max_size=8,
)  # fmt: skip


DOCUMENTS = JSON | st.fixed_dictionaries({}, optional={"keys": JSON, "tags": JSON, "all": JSON})


def read(body: bytes) -> InvalidationPayload:
    """Small bodies are read without suspending, so no event loop is needed."""
    with pytest.raises(StopIteration) as finished:
        parse_changes(body).send(None)
    changes = finished.value.value
    assert isinstance(changes, InvalidationPayload)
    return changes


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=60) | DOCUMENTS.map(lambda document: json.dumps(document).encode()))
def test_any_body_is_read_or_called_malformed(body: bytes) -> None:
    fault: MalformedPayload | None = None
    try:
        read(body)
    except MalformedPayload as raised:
        fault = raised
    if fault is None:
        assert set(json.loads(body)) <= {"keys", "tags", "all"}
    else:
        assert fault.__context__ is None


@settings(max_examples=100, deadline=None)
@given(keys=KEYS, tags=st.lists(st.text(min_size=1, max_size=9), max_size=4), everything=st.booleans())
def test_what_was_written_is_read(keys: list[Any], tags: list[str], everything: bool) -> None:
    changes = read(body_of(keys=keys, tags=tags, all=everything))
    expected = [ProfileKey(key) if isinstance(key, str) else ProfileKey(**key) for key in keys]
    assert (changes.keys, changes.tags, changes.all) == (expected, tags, everything)


# --- where it is mounted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/hook", "/mount/", "/mount/below"])
async def test_under_mount_and_as_a_route(path: str) -> None:
    inner = app_of(client_of(ScriptedSource()))
    app = Starlette(routes=[Route("/hook", inner), Mount("/mount", inner)])
    assert (await post(app, body_of(all=True), path=path)).status_code == 200
    assert (await post(app, b"", path=path, method="PUT")).status_code == 405


async def test_websockets_are_closed_and_other_scopes_ignored() -> None:
    app = app_of(client_of(ScriptedSource()))
    assert [message["type"] for message in await drive(app, [], {}, kind="websocket")] == ["websocket.close"]
    assert await drive(app, [], {}, kind="of-the-future") == []


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """A real server on 127.0.0.1, in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def test_alone_under_a_real_server() -> None:
    client = client_of(ScriptedSource())
    asyncio.run(client.get("u1"))
    with serving(ProfileInvalidation(client, secret=SECRET)) as url:
        body = body_of(keys=["u1"])
        headers = {"content-type": "application/json", **sign(SECRET, body)}
        assert httpx.post(url, content=body, headers=headers).json()["keys"] == 1
        assert httpx.post(url, content=iter([body[:5], body[5:]]), headers=headers).json()["repeated"] is True
        assert httpx.post(url, content=iter([b"x" * 2**19] * 3), headers=headers).status_code == 413
        assert httpx.get(url).status_code == 405
    assert client.peek("u1") is None


def test_the_lock_is_renewed_after_a_fork() -> None:
    app = app_of(client_of(ScriptedSource()))
    with app._seen._lock:  # simulates another thread that holds the lock
        app._seen.after_fork()
        app._seen.add(b"call")
    assert b"call" in app._seen


# --- arguments and privacy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"secret": "short"},
        {"secret": []},
        {"secret": [SECRET, ""]},
        {"secret": "with-a-line\n-break-inside"},
        {"secret": "umläute-are-not-ascii"},
        {"secret": [None]},
        {"window": 0},
        {"window": float("inf")},
        {"window": True},
        {"body_timeout": -1},
        {"max_body": 0},
        {"max_body": 1.5},
        {"remember": 0},
        {"remember": True},
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    client = client_of(ScriptedSource())
    with pytest.raises(ConfigurationError, match=next(iter(arguments))) as caught:
        app_of(client, **arguments)
    assert "umläute" not in str(caught.value)


def test_client_and_secret_of_sign_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="client must be a ProfileClient"):
        ProfileInvalidation(object(), secret=SECRET)  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ConfigurationError, match="secret"):
        sign("short", b"")


async def test_A18_nothing_personal_or_secret_is_emitted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = client_of(ScriptedSource())
    await client.get(PLANTED)
    app = app_of(client)
    key = {"type": "email", "value": PLANTED}
    emitted = [repr(app), repr(vars(app))]
    bodies = [
        body_of(keys=[PLANTED, key], tags=[PLANTED]),
        body_of(keys=[{**key, "extra": PLANTED}]),
        body_of(keys=[key, PLANTED * 200]),
        body_of(**{PLANTED: 1}),
        f'{{"keys": ["{PLANTED}"'.encode(),
        PLANTED.encode() + b"\xff",
    ]
    for body in bodies:
        for headers in (headers_of(body), headers_of(body, secret=OTHER), headers_of(body, timestamp=1)):
            response = await post(app, body, headers)
            emitted.append(response.text)
            emitted.append(str(response.headers))
        try:
            emitted.append(repr(await parse_changes(body)))
        except MalformedPayload as fault:
            emitted.append("".join(traceback.format_exception(fault)))
    emitted.extend(record.getMessage() + str(record.args) for record in caplog.records if record.name != "httpx")
    text = "\n".join(emitted)
    for planted in (PLANTED, SECRET, OTHER, "planted"):
        assert planted not in text
    assert "dropped 2 keys and 1 tags" in text


async def test_refused_calls_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = app_of(client_of(ScriptedSource()))
    body = body_of(all=True)
    for _ in range(20):
        await post(app, body, headers_of(body, secret=OTHER))
        await post(app, body, headers_of(body, timestamp=1))
    refused = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
    assert len(refused) == 2
    assert any("outside of the window" in line for line in refused)


async def test_W1_identical_calls_at_once_are_carried_out_once(caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(ScriptedSource())
    app = app_of(client)
    body = body_of(keys=[f"u{number}" for number in range(5_000)])  # long enough for the calls to overlap
    with caplog.at_level(logging.INFO, "profile_enrich"):
        answers = await asyncio.gather(*(post(app, body) for _ in range(50)))
    assert sorted(answer.json()["repeated"] for answer in answers) == [False] + [True] * 49
    assert caplog.text.count("from the cache, as asked") == 1
    await client.aclose()


async def test_W1_when_the_call_that_is_under_way_fails_the_next_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = client_of(ScriptedSource())
    app, failures = app_of(client), [True, False]

    async def acknowledged() -> None:
        await asyncio.sleep(0.01)
        if failures.pop(0):
            raise SharedCacheUnavailable("the shared cache does not answer")

    monkeypatch.setattr(client, "acknowledged", acknowledged)
    answers = await asyncio.gather(*(post(app, body_of(keys=["u1"])) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503]
    assert sorted(answer.json()["repeated"] for answer in answers if answer.status_code == 200) == [False, True]
    await client.aclose()


@pytest.mark.parametrize(
    "body", [b'{"keys":["u1"],"keys":[]}', b'{"all":true,"all":false}', b'{"keys":[],"x":{"a":1,"a":2}}']
)
async def test_W2_a_name_that_occurs_twice_drops_nothing_and_says_so(body: bytes) -> None:
    client = client_of(ScriptedSource())
    answer = await post(app_of(client), body)
    assert answer.status_code == 400
    assert "a name occurs twice" in answer.json()["error"]["message"]
    await client.aclose()
