"""Writing of single records: `PUT` and `DELETE` at their read URLs, for keys with `admin`.

```text
PUT    /api/v1/entities/1/record?record_id=u1     {"tier":"gold","email":"ann@shop.example"}
DELETE /api/v1/entities/1/record?record_id=u1
PUT    /api/indexes/idx-…/profiles/u1              the same
DELETE /api/indexes/idx-…/profiles/u1
```

The body of a `PUT` replaces the whole record. The vendors have no such endpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

from ..._utils.strict_json import StrictJsonError, strict_decoder
from ...errors import ConfigurationError, StoreBusy
from ...store import Collection, ProfileStore
from ..http.messages import BadRequest

__all__ = ["METHODS", "delete", "put", "read_record"]

_DECODE = strict_decoder().decode

METHODS = ("PUT", "DELETE")

_AT_ONCE = 2
_WAIT = 1.0  # seconds to wait for another writer, e.g. a refresh; then the client gets a Retry-After
_PATIENCE = 5.0  # seconds to wait for a slot


def read_record(body: bytes, content_type: list[bytes]) -> dict[str, Any]:
    """Parse the attributes in the body of a `PUT`.

    Raises:
        BadRequest: the body is not a JSON object in UTF-8. The message holds no value.
    """
    if len(content_type) != 1 or content_type[0].partition(b";")[0].strip().lower() != b"application/json":
        raise BadRequest("Send the record as application/json.")
    record: object = None
    problem = ""
    try:
        record = _DECODE(body.decode())
    except StrictJsonError as error:
        problem = f"The body is not JSON: {error.reason}."
    except (ValueError, RecursionError):
        problem = "The body is not JSON in UTF-8."
    if problem:
        raise BadRequest(problem)
    if not isinstance(record, dict):
        raise BadRequest("The body must be a JSON object: the attributes of the record.")
    return cast("dict[str, Any]", record)


async def put(store: ProfileStore, collection: Collection, record_id: str, record: Mapping[str, Any]) -> bool:
    """Insert or replace one record in a thread; return true if it is new.

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
    """Delete one record in a thread; return true if it existed.

    Raises:
        StoreError: the store cannot be written now.
    """
    async with _turn():
        return await asyncio.to_thread(store.delete_record, collection, record_id, wait=_WAIT)


@contextlib.asynccontextmanager
async def _turn() -> AsyncGenerator[None]:
    """Limit concurrent writes, because each waits in a thread during a build and must leave threads for other calls.

    Raises:
        StoreBusy: the wait took too long.
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
