"""Postman collection (format 2.1) of the entities and indexes in a key's scope.

Source: https://schema.postman.com/collection/json/v2.1.0/draft-07/docs/index.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ...store import Collection
from ..auth.api_keys import ANYONE, ApiKey
from ..dialects import amperity

__all__ = ["postman_collection"]

_SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"


def postman_collection(
    collections: Iterable[Collection],
    key: ApiKey = ANYONE,
    *,
    server: str = "http://127.0.0.1:8787",
    workspace: str | None = None,
) -> dict[str, Any]:
    """Return the Postman collection as JSON data.

    It has a folder with requests and tests for each entity. The variables are `baseUrl`, `apiKey` (to be filled in),
    `tenant`, and `id_1`, `id_2`, …: the id of one record per entity, set by the first request.

    Args:
        collections: the served collections.
        key: the API key.
        server: the base URL.
        workspace: the served tenant; `None` for any.
    """
    seen = key.visible(collections)
    variables = {"baseUrl": server.rstrip("/"), "apiKey": "", "tenant": workspace or "default"}
    variables.update((f"id_{item.id}", "") for item in seen)
    return {
        "info": {
            "name": "Profile API",
            "description": "Customer profiles, in the formats of Census's and Amperity's profile APIs.",
            "schema": _SCHEMA,
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{apiKey}}", "type": "string"}]},
        "variable": [{"key": name, "value": value, "type": "string"} for name, value in variables.items()],
        "item": [
            {
                "name": "Server",
                "item": [
                    _request("Health", "/healthz", auth=False),
                    _request("Status", "/status"),
                    _request("Census: entities", "/api/v1/entities"),
                    _request("Amperity: indexes", "/api/indexes", tenant=True),
                ],
            },
            *(_folder(item, key) for item in seen),
        ],
    }


def _folder(item: Collection, key: ApiKey) -> dict[str, Any]:
    id = f"id_{item.id}"
    ids = {"ids": [f"{{{{{id}}}}}"]}
    requests: list[dict[str, Any]] = []
    listed = item.index_fields is not None and key.sees_ids(item)
    index = f"/api/indexes/{item.index_id}"
    if listed:
        keep = [
            "const first = pm.response.json().data[0];",
            f"if (first) pm.collectionVariables.set({json.dumps(id)}, first.id);",
        ]
        requests.append(
            _request("Amperity: profiles", f"{index}/profiles?limit=5&with_total=true", tenant=True, script=keep)
        )
        requests += [
            _request(f"Amperity: filter by {name}", f"{index}/profiles?limit=5&filter[{name}]=value", tenant=True)
            for name in key.filterable(item)
        ]
    # Without an index no id is known, so a record is found only if the user filled in an id.
    statuses = (200,) if listed else (200, 400, 404)
    requests += [
        _request("Census: record", f"/api/v1/entities/{item.id}/record?record_id={{{{{id}}}}}", statuses=statuses),
        _request("Extension: several records", f"/api/x/entities/{item.id}/records", body=ids, statuses=statuses),
    ]
    if item.index_fields is not None:
        requests += [
            _request("Amperity: index", index, tenant=True),
            _request("Amperity: profile", f"{index}/profiles/{{{{{id}}}}}", tenant=True, statuses=statuses),
            _request(
                "Extension: several profiles", f"/api/x/indexes/{item.index_id}/profiles", tenant=True, body=ids,
                statuses=statuses,
            ),
        ]  # fmt: skip
    return {"name": item.name, "description": item.description, "item": requests}


def _request(
    name: str,
    path: str,
    *,
    tenant: bool = False,
    auth: bool = True,
    body: Any = None,
    script: Iterable[str] = (),
    statuses: tuple[int, ...] = (200,),
) -> dict[str, Any]:
    bare, _, query = path.partition("?")
    url: dict[str, Any] = {
        "raw": "{{baseUrl}}" + path,
        "host": ["{{baseUrl}}"],
        "path": bare.strip("/").split("/"),
    }
    if query:
        pairs = (part.split("=", 1) for part in query.split("&"))
        url["query"] = [{"key": parameter, "value": value} for parameter, value in pairs]
    header = [{"key": "Accept", "value": "application/json"}]
    if tenant:
        header += [
            {"key": "amperity-tenant", "value": "{{tenant}}"},
            {"key": "api-version", "value": amperity.VERSION},
        ]
    request: dict[str, Any] = {"method": "GET" if body is None else "POST", "header": header, "url": url}
    if not auth:
        request["auth"] = {"type": "noauth"}
    if body is not None:
        header.append({"key": "Content-Type", "value": "application/json"})
        request["body"] = {"mode": "raw", "raw": json.dumps(body), "options": {"raw": {"language": "json"}}}
    lines = [
        f"pm.test('answers', () => pm.expect(pm.response.code).to.be.oneOf({json.dumps(list(statuses))}));",
        *script,
    ]
    return {
        "name": name,
        "request": request,
        "event": [{"listen": "test", "script": {"type": "text/javascript", "exec": lines}}],
    }
