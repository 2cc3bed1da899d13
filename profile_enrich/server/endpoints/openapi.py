"""OpenAPI 3.1 description of this server, generated from its endpoints and the served collections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..._version import __version__
from ...store import Collection
from ...store.collection import MAX_PAGE, Column, ColumnType
from ..auth.api_keys import ANYONE, ApiKey
from ..auth.field_scopes import REDACTED, FieldScope
from ..dialects import amperity
from .batch import MAX_BATCH

__all__ = ["ENDPOINTS", "Endpoint", "describe"]

Schema = dict[str, Any]

_MAX_ID = 2048


class Endpoint(NamedTuple):
    """One endpoint.

    Attributes:
        kind: the kind of request in the server.
        method: the HTTP method in lower case.
        path: the path, with parameters in braces.
        summary: a one-line summary.
        parameters: names of `components/parameters`.
        result: name of the schema of the 200 answer.
        errors: the statuses besides 200.
        body: name of the schema of the request's body.
        public: whether it needs no key.
    """

    kind: str
    method: str
    path: str
    summary: str
    parameters: tuple[str, ...]
    result: str
    errors: tuple[int, ...]
    body: str | None = None
    public: bool = False


_CENSUS = (400, 401, 403, 404, 429, 500, 503)
_AMPERITY = ("tenant", "version")

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("healthz", "get", "/healthz", "Whether the server answers", (), "Health", (405, 500), public=True),
    Endpoint("status", "get", "/status", "The collections, their age, requests counted", (), "Status",
             (401, 403, 429, 500, 503)),
    Endpoint("census.entities", "get", "/api/v1/entities", "Census: the entities that the key sees", (), "Entities",
             (401, 403, 429, 500, 503)),
    Endpoint("census.record", "get", "/api/v1/entities/{entity_id}/record", "Census: one record by its primary id",
             ("entity_id", "record_id"), "RecordAnswer", _CENSUS),
    Endpoint("census.batch", "post", "/api/x/entities/{entity_id}/records",
             "Extension: several records by their primary ids", ("entity_id",), "RecordBatch", (*_CENSUS, 413), "Ids"),
    Endpoint("amperity.indexes", "get", "/api/indexes", "Amperity: the indexes that the key sees",
             (*_AMPERITY, "limit", "next_token", "with_total"), "Indexes", (400, 401, 403, 429, 500, 503)),
    Endpoint("amperity.index", "get", "/api/indexes/{index_id}", "Amperity: one index", (*_AMPERITY, "index_id"),
             "Index", _CENSUS),
    Endpoint("amperity.profiles", "get", "/api/indexes/{index_id}/profiles",
             "Amperity: the profiles that match all filters, in pages",
             (*_AMPERITY, "index_id", "limit", "next_token", "with_total", "filter"), "Profiles", _CENSUS),
    Endpoint("amperity.profile", "get", "/api/indexes/{index_id}/profiles/{profile_id}", "Amperity: one profile",
             (*_AMPERITY, "index_id", "profile_id"), "Profile", _CENSUS),
    Endpoint("amperity.batch", "post", "/api/x/indexes/{index_id}/profiles",
             "Extension: several profiles by their ids", (*_AMPERITY, "index_id"), "ProfileBatch", (*_CENSUS, 413),
             "Ids"),
    Endpoint("openapi", "get", "/openapi.json", "This document", (), "Document", (401, 403, 429, 500, 503)),
)  # fmt: skip
"""All endpoints that partners use. The change feed and the writing of single records are the operator's own, and the
two ways of getting an Amperity token are described by that vendor."""

_TEXTS: dict[int, str] = {
    400: "The request is malformed.",
    401: "There is no key, or it is not a valid one.",
    403: "The key lacks the permission; the response does not reveal whether the resource exists.",
    404: "The resource does not exist.",
    405: "The method is not allowed here.",
    413: "The body is too large.",
    429: "The key's rate is used up; see Retry-After.",
    500: "An internal error.",
    503: "The profiles cannot be read at the moment.",
}

_TYPES: dict[ColumnType, Schema] = {
    "text": {"type": ["string", "null"]},
    "integer": {"type": ["integer", "null"]},
    "number": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "json": {},
}


def describe(
    collections: Iterable[Collection],
    key: ApiKey = ANYONE,
    *,
    server: str = "/",
    title: str = "Profile API",
    workspace: str | None = None,
) -> dict[str, Any]:
    """Describe the endpoints for one key.

    Args:
        collections: the served collections.
        key: the API key; collections and fields outside its scope are omitted.
        server: the base URL of the paths.
        title: the title of the document.
        workspace: the served tenant; `None` for any.

    Returns:
        An OpenAPI 3.1 document as JSON data.
    """
    seen = key.visible(collections)
    indexes = [item for item in seen if item.index_fields is not None]
    # A key with a list of entities gets 403 for all others, existing or not; a key without one gets 404.
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": __version__,
            "description": "Customer profiles, in the formats of Census's and Amperity's profile APIs.",
        },
        "servers": [{"url": server}],
        "security": [{"key": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "parameters": _parameters(seen, indexes, key, workspace),
            "headers": _HEADERS,
            "schemas": {**_fixed_schemas(), **_collection_schemas(seen, indexes, key)},
        },
    }


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        error = "AmperityError" if endpoint.kind.startswith("amperity.") else "CensusError"
        responses: dict[str, Any] = {
            "200": {"description": endpoint.summary, "content": _json(endpoint.result), "headers": _LIMIT_REFS}
        }
        for status in endpoint.errors:
            responses[str(status)] = {"description": _TEXTS[status], "content": _json(error)}
        if "429" in responses:
            responses["429"]["headers"] = {**_LIMIT_REFS, "Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
        operation: dict[str, Any] = {
            "operationId": endpoint.kind.replace(".", "_"),
            "summary": endpoint.summary,
            "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in endpoint.parameters],
            "responses": responses,
        }
        if endpoint.body is not None:
            operation["requestBody"] = {"required": True, "content": _json(endpoint.body)}
        if endpoint.public:
            operation["security"] = []
        paths.setdefault(endpoint.path, {})[endpoint.method] = operation
    return paths


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


_HEADERS: dict[str, Any] = {
    "RateLimit": {
        "description": "The remaining quota, if there is a rate limit: r requests, fully restored in t seconds.",
        "schema": {"type": "string"},
        "example": '"key";r=57;t=3',
    },
    "RateLimitPolicy": {
        "description": "The rate limit, if there is one: q requests in w seconds.",
        "schema": {"type": "string"},
        "example": '"key";q=100;w=60',
    },
    "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
}
_LIMIT_REFS = {
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
}


def _parameters(
    seen: list[Collection], indexes: list[Collection], key: ApiKey, workspace: str | None
) -> dict[str, Any]:
    id_schema: Schema = {"type": "string", "minLength": 1, "maxLength": _MAX_ID}
    tenant: Schema = {"type": "string", "minLength": 1} if workspace is None else {"const": workspace}
    return {
        "entity_id": _parameter("entity_id", "path", {"type": "integer", "minimum": 1, "maximum": 10**18 - 1},
                                ", ".join(f"{item.id} ({item.name})" for item in seen)),
        "record_id": _parameter("record_id", "query", id_schema, "The primary id, exactly."),
        "index_id": _parameter("index_id", "path", {"type": "string", "minLength": 1},
                               ", ".join(f"{item.index_id} ({item.name})" for item in indexes)),
        "profile_id": _parameter("profile_id", "path", {"type": "string", "minLength": 1}, "The id, exactly."),
        "tenant": _parameter("amperity-tenant", "header", tenant, "The tenant (workspace) that the key belongs to."),
        "version": _parameter("api-version", "header", {"const": amperity.VERSION}, "The version of Amperity's API."),
        "limit": _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 25},
                            "The number of items per page.", required=False),
        "next_token": _parameter("next_token", "query", {"type": "string", "minLength": 1},
                                 "That of the page before; signed, and good for the same index and filters only.",
                                 required=False),
        "with_total": _parameter("with_total", "query", {"type": "boolean", "default": False},
                                 "Also count all matches.", required=False),
        "filter": {
            **_parameter("filter", "query", _filters(indexes, key), "Attributes with their exact values.",
                         required=False),
            "style": "deepObject",
            "explode": True,
        },
    }  # fmt: skip


def _parameter(name: str, place: str, schema: Schema, text: str, *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "description": text, "schema": schema}


def _filters(indexes: list[Collection], key: ApiKey) -> Schema:
    names = sorted({name for item in indexes for name in key.filterable(item)})
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "additionalProperties": False,
    }


def _collection_schemas(seen: list[Collection], indexes: list[Collection], key: ApiKey) -> dict[str, Any]:
    records = {f"Record{item.id}": _record(item, key.fields.get(item.name), key.columns(item)) for item in seen}
    attributes = {f"Attributes{item.id}": _attributes(item, key.fields.get(item.name)) for item in indexes}
    profile = _object(
        {"id": {"type": "string"}, "index_id": {"type": "string"}, "attributes": _any_of(attributes)},
        "id", "index_id", "attributes",
    )  # fmt: skip
    return {
        **records,
        **attributes,
        "RecordAnswer": _object({"data": _any_of(records)}, "data"),
        "RecordBatch": _batch(_any_of(records)),
        "Profile": profile,
        "Profiles": _page({"$ref": "#/components/schemas/Profile"}),
        "ProfileBatch": _batch({"$ref": "#/components/schemas/Profile"}),
    }


def _record(item: Collection, scope: FieldScope | None, columns: list[Column]) -> Schema:
    properties = {column.name: _seen(column.name, _TYPES[column.type], scope) for column in columns}
    return {**_object(properties), "title": item.name, "description": f"A record of {item.name}, by {item.key}."}


def _attributes(item: Collection, scope: FieldScope | None) -> Schema:
    properties = {
        name: _seen(name, {"type": "string"}, scope)
        for name in item.index_fields or ()
        if scope is None or name in scope.named
    }
    return {**_object(properties), "title": item.name, "additionalProperties": False}


def _seen(name: str, schema: Schema, scope: FieldScope | None) -> Schema:
    if scope is not None and name in scope.hash:
        return {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$", "description": "A keyed hash of the value."}
    if scope is not None and name in scope.redact:
        return {"enum": [REDACTED, None], "description": "Only whether there is a value."}
    return schema


def _any_of(schemas: dict[str, Any]) -> Schema:
    return {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in schemas]} if schemas else {"not": {}}


def _batch(record: Schema) -> Schema:
    row = _object({"id": {"type": "string"}, "found": {"type": "boolean"}, "record": record}, "id", "found")
    return _object({"data": {"type": "array", "items": row, "maxItems": MAX_BATCH}}, "data")


def _page(item: Schema) -> Schema:
    return _object(
        {"data": {"type": "array", "items": item}, "next_token": {"type": "string"}, "total": {"type": "integer"}},
        "data",
    )


def _object(properties: dict[str, Any], *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _fixed_schemas() -> dict[str, Any]:
    text: Schema = {"type": "string"}
    moment: Schema = {"type": "string", "format": "date-time"}
    return {
        "Health": _object({"status": {"const": "ok"}}, "status"),
        "Status": _object(
            {
                "generation": {"type": "integer"},
                "uptime_seconds": {"type": "number"},
                "collections": {"type": "array", "items": {"type": "object"}},
                "requests": {"type": "object"},
                "responses": {"type": "object"},
            },
            "generation",
            "collections",
        ),
        "Entities": _object(
            {
                "data": {
                    "type": "array",
                    "items": _object(
                        {"id": {"type": "integer"}, "name": text, "library_id": {"type": "integer"}}, "id", "name"
                    ),
                }
            },
            "data",
        ),
        "Index": _object(
            {"id": text, "name": text, "description": text, "created_at": moment, "updated_at": moment}, "id", "name"
        ),
        "Indexes": _page({"$ref": "#/components/schemas/Index"}),
        "Ids": {
            **_object(
                {
                    "ids": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": MAX_BATCH,
                        "items": {"type": "string", "minLength": 1},
                    }
                },
                "ids",
            ),
            "additionalProperties": True,
        },
        "CensusError": _object({"error": _object({"code": text, "message": text}, "code", "message")}, "error"),
        "AmperityError": _object(
            {"status": {"type": "integer"}, "message": text, "request_id": text, "trace_id": text}, "status", "message"
        ),
        "Document": _object({"openapi": text, "info": {"type": "object"}, "paths": {"type": "object"}}, "openapi"),
    }
