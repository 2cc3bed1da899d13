"""Single records, written through a key that may: `PUT` and `DELETE` at the URLs where they are read.

```text
PUT    /api/v1/entities/1/record?record_id=u1     {"tier":"gold","email":"ann@shop.example"}
DELETE /api/v1/entities/1/record?record_id=u1
PUT    /api/indexes/idx-…/profiles/u1              the same
DELETE /api/indexes/idx-…/profiles/u1
```

The body of a `PUT` is the whole record: what it does not name is gone. The vendors have no such endpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

from ...errors import ConfigurationError, StoreBusy
from ...store import Collection, ProfileStore
from ..http.messages import BadRequest

__all__ = ["METHODS", "delete", "put", "read_record"]

METHODS = ("PUT", "DELETE")

_AT_ONCE = 2
_WAIT = 1.0  # seconds for another writer, e.g. a refresh; the client is told to come back
_PATIENCE = 5.0  # seconds for one's turn


def read_record(body: bytes, content_type: list[bytes]) -> dict[str, Any]:
    """The attributes that a `PUT` brings.

    Raises:
        BadRequest: they are not a JSON object in UTF-8. What is wrong is said, never a value.
    """
    if len(content_type) != 1 or content_type[0].partition(b";")[0].strip().lower() != b"application/json":
        raise BadRequest("Send the record as application/json.")
    record: object = None
    readable = True
    try:
        record = json.loads(body.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        readable = False
    if not readable:
        raise BadRequest("The body is not JSON in UTF-8.")
    if not isinstance(record, dict):
        raise BadRequest("The body must be a JSON object: the attributes of the record.")
    return cast("dict[str, Any]", record)


def _refuse(_: str) -> None:
    raise ValueError  # NaN and Infinity are not JSON


async def put(store: ProfileStore, collection: Collection, record_id: str, record: Mapping[str, Any]) -> bool:
    """Write one record, in a thread: it waits for the disk. Whether it is a new one.

    Raises:
        BadRequest: the record does not fit the collection.
        StoreError: the store cannot be written now.
    """
    named = record.get(collection.key, record_id)
    if named != record_id and str(named) != record_id:
        raise BadRequest("The record's id column holds another id than the URL.")
    problem = ""
    try:
        async with _turn():
            return await asyncio.to_thread(
                store.put_record, collection, record_id, {collection.key: record_id, **record}, wait=_WAIT
            )
    except ConfigurationError as failure:
        problem = f"{failure.message}."
    raise BadRequest(problem)


async def delete(store: ProfileStore, collection: Collection, record_id: str) -> bool:
    """Remove one record, in a thread. Whether there was one.

    Raises:
        StoreError: the store cannot be written now.
    """
    async with _turn():
        return await asyncio.to_thread(store.delete_record, collection, record_id, wait=_WAIT)


@contextlib.asynccontextmanager
async def _turn() -> AsyncGenerator[None]:
    """A few write at once: during a build each waits in a thread, and there must be threads left for others.

    Raises:
        StoreBusy: it took too long.
    """
    turns = _TURNS.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE))
    late = False
    try:
        async with asyncio.timeout(_PATIENCE):
            await turns.acquire()
    except TimeoutError:
        late = True
    if late:
        raise StoreBusy("too many records wait to be written")
    try:
        yield
    finally:
        turns.release()


_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
