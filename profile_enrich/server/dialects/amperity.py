"""Amperity's dialect: the Profile API, version 2025-07-31 (`/api/indexes…`), by the vendor's OpenAPI file.

Where the vendor's documentation is silent: `limit` is 1 to 1,000; an unknown version, a filter on an attribute that is
not filterable and a repeated parameter are 400; null attributes are omitted (the vendor's attributes are strings).
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any

from ...errors import ConfigurationError, CursorError
from ...store import Collection, ProfileStore
from ...store.collection import MAX_PAGE
from ...store.files.page_token import open_cursor, sign_cursor
from ..auth.api_keys import ApiKey
from ..http.messages import MAX_ID_BYTES, BadRequest, Request, Response, json_response, segment_text

__all__ = ["VERSION", "answer", "collection_of", "error", "record_id_of", "tenant_of"]

VERSION = "2025-07-31"

_DEFAULT_LIMIT = 25
_LIMIT = re.compile(r"[0-9]{1,9}")
_LIST_SCOPE = b"indexes"
_MESSAGES = {403: "The API key has no permission for this operation.", 404: "The requested entity does not exist."}


def error(status: int, message: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    """Return an error in the vendor's envelope: status, message, request_id, trace_id."""
    content = {
        "status": status,
        "message": message or _MESSAGES[status],
        "request_id": str(uuid.uuid4()),
        "trace_id": uuid.uuid4().hex,
    }
    return json_response(status, content, headers)


def route(segments: list[bytes]) -> str | None:
    """Return the endpoint for the segments after `/api`."""
    if segments[:1] != [b"indexes"]:
        return None
    if len(segments) == 1:
        return "amperity.indexes"
    if len(segments) == 2:
        return "amperity.index"
    if segments[2] != b"profiles":
        return None
    return {3: "amperity.profiles", 4: "amperity.profile"}.get(len(segments))


def refuse(kind: str, request: Request, workspace: str | None) -> Response | None:
    """Check the tenant and version of a request; return the error response, or `None`.

    Args:
        kind: the endpoint. The vendor documents 400 for lists only; a single index or profile returns 401 instead.
        request: the authenticated request.
        workspace: the served tenant; `None` for any.
    """
    wrong = 400 if kind in ("amperity.indexes", "amperity.profiles", "amperity.batch") else 401
    tenant = tenant_of(request)
    if not tenant:
        return error(wrong, "The header amperity-tenant is required, once.")
    if workspace is not None and tenant != workspace.encode():
        return error(403)
    versions = {value.strip() for value in request.header(b"api-version")}
    versions |= {value.encode() for name, value in request.parameters() if name == "api_version"}
    if not versions:
        return error(wrong, f"The header api-version (or the parameter api_version) is required: {VERSION}.")
    if versions != {VERSION.encode()}:
        return error(wrong, f"This version is not supported; supported is {VERSION}.")
    return None


def tenant_of(request: Request) -> bytes | None:
    """Return the tenant of a request, from `amperity-tenant` or, as in the vendor's earlier API, `X-Amperity-Tenant`.

    `None` if there is none, or more than one.
    """
    named = set(request.header(b"amperity-tenant") + request.header(b"x-amperity-tenant"))
    return named.pop().strip() if len(named) == 1 else None


def answer(kind: str, request: Request, store: ProfileStore, key: ApiKey) -> Response:
    """Respond to a request after the checks of key, tenant and version.

    Raises:
        BadRequest: the request is malformed.
    """
    if kind == "amperity.indexes":
        return _list_indexes(request, store, key)
    index = collection_of(request, store, key)
    if isinstance(index, Response):
        return index
    if kind == "amperity.index":
        return json_response(200, _index(index))
    if kind == "amperity.profiles":
        return _list_profiles(request, store, index, key)
    profile_id = record_id_of(request)
    request.noted.records.append((profile_id, None))
    payload = None
    if len(profile_id.encode()) <= MAX_ID_BYTES:
        payload = store.get_payload(index, profile_id, "amperity")
    if payload is None:
        return error(404)
    view = key.view(index, store.secret) if key.fields else None
    return Response(200, payload if view is None else view.amperity(payload))


def collection_of(request: Request, store: ProfileStore, key: ApiKey) -> Collection | Response:
    """Return the index in the path, or the error response.

    Raises:
        BadRequest: the path is malformed.
    """
    place = request.segments.index(b"indexes") + 1
    index = store.find_index(segment_text(request.segments[place]))
    if index is None or index.index_fields is None or not key.may_read(index.name):
        return error(404 if key.entities is None else 403)
    request.noted.entity = index.name
    return index


def record_id_of(request: Request) -> str:
    """The profile that the path names.

    Raises:
        BadRequest: the path is malformed.
    """
    return segment_text(request.segments[4])


def _list_indexes(request: Request, store: ProfileStore, key: ApiKey) -> Response:
    limit, token, with_total, _ = _page_parameters(request)
    indexes = [item for item in key.visible(store.collections()) if item.index_fields is not None]
    # Continue after an id, not an offset, so that a new index does not cause repeated or missed ones.
    after = 0
    if token is not None:
        try:
            after = open_cursor(store.secret, _LIST_SCOPE, 0, token)
        except CursorError:
            after = -1
        if after < 0:
            raise BadRequest("This next_token is not valid here.")
    rest = [item for item in indexes if item.id > after]
    content: dict[str, Any] = {"data": [_index(item) for item in rest[:limit]]}
    if len(rest) > limit:
        content["next_token"] = sign_cursor(store.secret, _LIST_SCOPE, 0, rest[limit - 1].id)
    if with_total:
        content["total"] = len(indexes)
    return json_response(200, content)


def _list_profiles(request: Request, store: ProfileStore, index: Collection, key: ApiKey) -> Response:
    limit, token, with_total, filters = _page_parameters(request)
    view = key.view(index, store.secret) if key.fields else None
    if view is not None:
        if not view.may_list:
            return error(403)
        if not filters.keys() <= set(view.filterable):
            # The store's message for all unfilterable attributes, which does not reveal whether one exists.
            allowed = ", ".join(view.filterable) or "none"
            raise BadRequest(f"a filter names an attribute that is not filterable; filterable are: {allowed}.")
    problem = ""
    try:
        page = store.page(index, filters, limit=limit, cursor=token, with_total=with_total)
        # The stored profiles are joined without decoding, for a key without field scopes.
        payloads = page.payloads if view is None else [view.amperity(payload) for payload in page.payloads]
        request.noted.profiles = len(payloads)
        body = b'{"data":[' + b",".join(payloads) + b"]"
        if page.next_cursor is not None:
            body += b',"next_token":"' + page.next_cursor.encode() + b'"'
        if page.total is not None:
            body += b',"total":' + str(page.total).encode()
        return Response(200, body + b"}")
    except CursorError as failure:
        problem = f"This next_token is not valid here: {failure.message}."
    except ConfigurationError as failure:
        problem = f"{failure.message}."
    raise BadRequest(problem)


def _page_parameters(request: Request) -> tuple[int, str | None, bool, dict[str, str]]:
    limit, token, with_total = _DEFAULT_LIMIT, None, False
    filters: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in request.parameters():
        if name in seen:
            raise BadRequest("A parameter was given more than once.")
        seen.add(name)
        if name == "limit":
            if not _LIMIT.fullmatch(value) or not 1 <= int(value) <= MAX_PAGE:
                raise BadRequest(f"limit must be a whole number from 1 to {MAX_PAGE}.")
            limit = int(value)
        elif name == "next_token":
            token = value or None  # an empty token means the first page
        elif name == "with_total":
            if value.lower() not in ("true", "false"):  # Python's HTTP clients send True
                raise BadRequest("with_total must be true or false.")
            with_total = value.lower() == "true"
        elif name.startswith("filter"):
            attribute = name[7:-1]
            if not attribute or name[6] != "[" or name[-1] != "]":
                raise BadRequest("A filter is written filter[attribute]=value.")
            filters[attribute] = value
    return limit, token, with_total, filters


def _index(item: Collection) -> dict[str, str]:
    return {
        "id": item.index_id,
        "name": item.name,
        "description": item.description,
        "created_at": _rfc3339(item.created_at),
        "updated_at": _rfc3339(item.updated_at),
    }


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
