"""Batch endpoint: several records in one request. It is an extension of this server, at paths that no vendor uses.

```text
POST /api/x/entities/{entity id}/records      {"ids": ["u1", "nobody"]}
→ {"data": [{"id": "u1", "found": true, "record": {…}}, {"id": "nobody", "found": false}]}

POST /api/x/indexes/{index id}/profiles       the same; `record` is a profile of Amperity's dialect
```

The results are in the order of the ids; a repeated id has two results. Authentication, scopes and headers are those of
the dialect. Each id counts as one request for the rate limit.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, cast

from ..._utils.strict_json import strict_decoder
from ...store import Collection, ProfileStore
from ..auth.api_keys import ApiKey
from ..http.messages import BadRequest, Request, Response

__all__ = ["MAX_BATCH", "MAX_BODY", "answer", "ids_of", "route"]

_DECODE = strict_decoder().decode

MAX_BATCH = 100
"""The largest number of ids in one request."""

MAX_BODY = 512 * 1024
"""The largest body in bytes, enough for that many ids of maximal length with JSON escapes."""


def route(segments: list[bytes]) -> str | None:
    """Return the endpoint for the segments after `/api/x`."""
    if len(segments) == 3:
        if segments[0] == b"entities" and segments[2] == b"records":
            return "census.batch"
        if segments[0] == b"indexes" and segments[2] == b"profiles":
            return "amperity.batch"
    return None


def ids_of(body: bytes) -> list[str]:
    """Parse the ids of a request body.

    Raises:
        BadRequest: it is not `{"ids": […]}` with 1 to 100 strings.
    """
    content: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        content = _DECODE(body.decode())
    listed: Any = cast("dict[str, Any]", content).get("ids") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise BadRequest('The body must be JSON: {"ids": ["…", "…"]}.')
    ids = cast("list[object]", listed)
    if not 1 <= len(ids) <= MAX_BATCH:
        raise BadRequest(f"ids must have 1 to {MAX_BATCH} entries.")
    for id in ids:
        if not isinstance(id, str) or not id:
            raise BadRequest("Each of ids must be a text that is not empty.")
    return cast("list[str]", listed)


def answer(
    kind: str, request: Request, ids: list[str], store: ProfileStore, collection: Collection, key: ApiKey
) -> Response:
    """The records with these ids, in their order, and which are not there."""
    census_form = kind == "census.batch"
    view = key.view(collection, store.secret)
    parts: list[bytes] = []
    for id in ids:
        quoted = json.dumps(id).encode()
        payload = store.get_payload(collection, id, "census" if census_form else "amperity")
        request.noted.records.append((id, 404 if payload is None else 200))
        if payload is None:
            parts.append(b'{"id":' + quoted + b',"found":false}')
            continue
        if census_form:
            # Stored as `{"data":{…}}`: the record is between the first colon and the last brace.
            whole = payload if view is None else view.census(payload)
            record = whole[whole.index(b":") + 1 : -1]
        else:
            record = payload if view is None else view.amperity(payload)
        parts.append(b'{"id":' + quoted + b',"found":true,"record":' + record + b"}")
    return Response(200, b'{"data":[' + b",".join(parts) + b"]}", ((b"cache-control", b"private, no-store"),))
