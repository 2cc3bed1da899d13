"""Requests to the embedded Profile API, with and without a socket."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.store import CollectionSpec, LocalStore, build_store

SECRET = "the-secret-of-the-key"
LIMITED = "the-secret-of-the-limited-key"
STRANGER = "the-secret-of-another-workspace"
ODD_ID = "a/b ?&#+%é\0\n.."

USERS: list[dict[str, Any]] = [
    {"id": f"u{n}", "email": f"u{n}@x.example", "tier": ["gold", "silver"][n % 2], "n": n, "none": None}
    for n in range(60)
] + [
    {"id": "x/y", "email": None, "tier": None, "n": 0, "none": None},
    {"id": ODD_ID, "email": "odd@x.example", "tier": "odd tier", "n": -1, "none": None},
]
ORDERS: list[dict[str, Any]] = [{"id": "o1", "total": 12.5, "secret": "planted-order"}]

KEYS = [
    ApiKey.from_secret(SECRET, workspace="acme", id="k1"),
    ApiKey.from_secret(LIMITED, workspace="acme", entities=["Users"], id="k2"),
    ApiKey.from_secret(STRANGER, workspace="other", id="k3"),
]


def build(path: Path) -> Path:
    build_store(
        path / "s",
        [
            CollectionSpec("Users", USERS, filterable=["tier", "email"], description="People"),
            CollectionSpec("Orders", ORDERS),
            CollectionSpec("Wide", [{"id": "w", **{f"c{n}": n for n in range(40)}}]),
        ],
    )
    return path / "s"


def api(store: LocalStore | Path, **options: Any) -> ProfileAPI:
    return ProfileAPI(store, **{"keys": KEYS, "workspace": "acme", **options})


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: Any,
    target: str | bytes,
    *,
    method: str = "GET",
    headers: dict[str, str] | list[tuple[bytes, bytes]] | None = None,
    body: bytes = b"",
    root_path: str = "",
    raw_path: bool = True,
) -> Answer:
    """Send one request directly to the application. The target is passed unchanged, with any bytes."""
    raw = target.encode() if isinstance(target, str) else target
    path, _, query = raw.partition(b"?")
    listed = (
        [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        if isinstance(headers, dict)
        else (headers or [])
    )
    from urllib.parse import unquote

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "query_string": query,
        "root_path": root_path,
        "headers": listed,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    if raw_path:
        scope["raw_path"] = path
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    # A request never suspends, so it is one step of a coroutine.
    coroutine = app(scope, receive, send)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError("the application waited for something")
    start, *parts = sent
    assert start["type"] == "http.response.start"
    answer = Answer(
        start["status"],
        joined(start["headers"]),
        b"".join(part.get("body", b"") for part in parts),
    )
    if method != "HEAD" and answer.status != 304:
        assert int(answer.headers["content-length"]) == len(answer.body)
    return answer


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the header fields; repeated ones are joined with commas."""
    fields: dict[str, str] = {}
    for name, value in headers:
        before = fields.get(name.decode())
        fields[name.decode()] = value.decode() if before is None else f"{before}, {value.decode()}"
    return fields


def basic(name: str, password: str) -> str:
    """Return the `Authorization` value for a name and a password (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def bearer(secret: str = SECRET) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def amperity(secret: str = SECRET, tenant: str = "acme", version: str = "2025-07-31") -> dict[str, str]:
    return {**bearer(secret), "amperity-tenant": tenant, "api-version": version}


@contextmanager
def served(app: ProfileAPI, port: int = 0) -> Generator[str]:
    """Run the application in a real uvicorn; yield its base URL."""
    import uvicorn

    from profile_enrich.server.process.sockets import bind, listen, url_of

    listener = bind("127.0.0.1", port)
    listen(listener)
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="critical", ws="none", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield url_of(listener)
    finally:
        app.end_streams()
        server.should_exit = True
        thread.join(30)
        listener.close()
