"""What a user would write instead, each in a process of its own on uvicorn.

It says its port, and ends when its input does.

`python -m benchmarks._alternatives KIND PLACE`: `postgresql URL`, `duckdb CSV`, `valkey URL`, `datasette FILE`, or
`bare -`, an ASGI application that sends the same bytes for every request.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response

from ._child import say
from ._people import FILTERABLE
from ._profile_api import SECRET

LIMIT = 25

Fetch = Callable[[str, Sequence[str]], Awaitable[list[Any]]]
"""Runs a statement with `$1`, `$2`, …; returns the first column of each row."""


def bare(_: str) -> Any:
    """Sends 350 bytes of JSON, about those of one profile."""
    body = b'{"data":{"id":"u00000001"' + b',"name":"value"' * 21 + b"}}"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return app


async def _check(authorization: Annotated[str, Header()]) -> None:
    if not hmac.compare_digest(authorization.encode(), f"Bearer {SECRET}".encode()):
        raise HTTPException(401)


def _sql_app(lifespan: Any, fetch: Fetch) -> Any:
    """Records, pages and totals of the table `p`, whose `payload` is JSON text and is sent as it is."""
    app = FastAPI(lifespan=lifespan, dependencies=[Depends(_check)])

    def where(request: Request) -> tuple[str, list[str]]:
        asked = request.query_params
        if not set(asked) <= set(FILTERABLE):
            raise HTTPException(400)
        matched = " AND ".join(f"{name} = ${number}" for number, name in enumerate(asked, 1))
        return f"WHERE {matched}" if matched else "", list(asked.values())

    @app.get("/record/{id}")
    async def record(id: str) -> Response:
        found = await fetch("SELECT payload FROM p WHERE id = $1", [id])
        if not found:
            raise HTTPException(404)
        return Response(found[0], media_type="application/json")

    @app.get("/page")
    async def page(request: Request) -> Response:
        condition, values = where(request)
        found = await fetch(f"SELECT payload FROM p {condition} ORDER BY docid LIMIT {LIMIT}", values)
        return Response(f'{{"data":[{",".join(found)}]}}', media_type="application/json")

    @app.get("/total")
    async def total(request: Request) -> Response:
        condition, values = where(request)
        found = await fetch(f"SELECT count(*) FROM p {condition}", values)
        return Response(f'{{"total":{found[0]}}}', media_type="application/json")

    return app


def postgresql(url: str) -> Any:
    """FastAPI and asyncpg, which keeps prepared statements."""
    import asyncpg

    pool: Any = None

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncGenerator[None]:
        nonlocal pool
        async with asyncpg.create_pool(url, min_size=16, max_size=16) as pool:
            yield

    async def fetch(statement: str, values: Sequence[str]) -> list[Any]:
        return [row[0] for row in await pool.fetch(statement, *values)]

    return _sql_app(lifespan, fetch)


def duckdb(csv: str) -> Any:
    """FastAPI and DuckDB, with a table in memory and calls in threads."""
    import duckdb
    from fastapi.concurrency import run_in_threadpool

    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE p AS SELECT row_number() OVER () AS docid, *, to_json(q)::VARCHAR AS payload"
        f" FROM read_csv('{csv}', all_varchar=true) q"
    )
    connection.execute("CREATE INDEX by_id ON p (id)")
    threads = threading.local()

    def call(statement: str, values: Sequence[str]) -> list[Any]:
        if not hasattr(threads, "cursor"):
            threads.cursor = connection.cursor()
        return [row[0] for row in threads.cursor.execute(statement, list(values)).fetchall()]

    async def fetch(statement: str, values: Sequence[str]) -> list[Any]:
        return await run_in_threadpool(call, statement, values)

    return _sql_app(None, fetch)


def valkey(url: str) -> Any:
    """FastAPI and a key-value server, for point lookups."""
    from redis.asyncio import Redis

    server = Redis.from_url(url)
    app = FastAPI(dependencies=[Depends(_check)])

    @app.get("/record/{id}")
    async def record(id: str) -> Response:
        payload = await server.get(id)
        if payload is None:
            raise HTTPException(404)
        return Response(payload, media_type="application/json")

    return app


def datasette(file: str) -> Any:
    """Datasette over a SQLite file; it has no check of a key."""
    from datasette.app import Datasette

    settings = {"sql_time_limit_ms": 30_000, "suggest_facets": False, "default_facet_size": 1}
    return Datasette([], immutables=[file], settings=settings).app()


KINDS = {each.__name__: each for each in (bare, postgresql, duckdb, valkey, datasette)}


def main(kind: str, place: str) -> None:
    import uvicorn

    app = KINDS[kind](place)

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            say({"port": self.servers[0].sockets[0].getsockname()[1], "pid": os.getpid()})

    def leave_with_parent() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        Server(uvicorn.Config(app, port=0, access_log=False, log_level="warning")).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
