"""Census's dialect: `/api/v1/entities`, `/api/v1/entities/{id}/record?record_id=`.

This module's docstrings define the responses that the vendor does not document (errors, a missing record).
"""

from __future__ import annotations

import re

from ...store import Collection, ProfileStore
from ..auth.api_keys import ApiKey
from ..http.messages import MAX_ID_BYTES, BadRequest, Request, Response, json_response, segment_text

__all__ = ["answer", "collection_of", "error", "record_id_of"]

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    429: "rate_limited",
    500: "internal",
    503: "unavailable",
}
_ENTITY_ID = re.compile(r"[1-9][0-9]{0,17}")  # one spelling per entity: no leading zeros, ASCII digits only


def error(status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    """Return an error in the vendor's envelope, `{"error":{"code":…,"message":…}}`."""
    return json_response(status, {"error": {"code": _CODES[status], "message": message}}, headers)


def route(segments: list[bytes]) -> str | None:
    """Return the endpoint for the segments after `/api/v1`."""
    if segments[:1] != [b"entities"]:
        return None
    if len(segments) == 1:
        return "census.entities"
    return "census.record" if len(segments) == 3 and segments[2] == b"record" else None


def answer(kind: str, request: Request, store: ProfileStore, key: ApiKey) -> Response:
    """Respond to an authenticated request.

    A missing entity is a 404; an entity outside the key's scope is a 403, existing or not.

    Raises:
        BadRequest: the request is malformed.
    """
    if kind == "census.entities":
        data = [{"id": item.id, "name": item.name, "library_id": 1} for item in key.visible(store.collections())]
        return json_response(200, {"data": data})
    return _record(request, store, key)


def collection_of(request: Request, store: ProfileStore, key: ApiKey) -> Collection | Response:
    """Return the entity in the path, or the error response.

    Raises:
        BadRequest: the path is malformed.
    """
    entity = segment_text(request.segments[3])
    collection = store.find(int(entity)) if _ENTITY_ID.fullmatch(entity) else None
    if collection is None or not key.may_read(collection.name):
        if key.entities is not None:
            return error(403, "This key may not read this entity.")
        return error(404, "There is no such entity.")
    request.noted.entity = collection.name
    return collection


def record_id_of(request: Request) -> str:
    """Return the record id in the query.

    Raises:
        BadRequest: the id is missing, repeated, empty or too long.
    """
    ids = [value for name, value in request.parameters() if name == "record_id"]
    if len(ids) != 1:
        raise BadRequest("The parameter record_id is required." if not ids else "record_id must be given once.")
    if not ids[0]:
        raise BadRequest("record_id must not be empty.")
    if len(ids[0].encode()) > MAX_ID_BYTES:
        raise BadRequest(f"record_id has at most {MAX_ID_BYTES} bytes.")
    return ids[0]


def _record(request: Request, store: ProfileStore, key: ApiKey) -> Response:
    collection = collection_of(request, store, key)
    if isinstance(collection, Response):
        return collection
    record_id = record_id_of(request)
    request.noted.records.append((record_id, None))
    payload = store.get_payload(collection, record_id, "census")
    if payload is None:
        return error(404, "There is no such record.")
    view = key.view(collection, store.secret) if key.fields else None
    return Response(200, payload if view is None else view.census(payload))
