"""Client of the embedded server's batch endpoint, which returns several records in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .._utils.deadline import Deadline
from ..errors import ConfigurationError, SourceResponseError
from ..profile import ProfileKey
from .base import Found, NotFound, SourceResult
from .freshness import Freshness
from .http.json_body import array, decode_json, obj
from .http.vendor_api import HttpApi
from .record_from_json import make_record

__all__ = ["MAX_BATCH", "NO_BATCHES", "batch_base", "fetch_records"]

MAX_BATCH = 100
"""The largest number of ids that the endpoint accepts."""

NO_BATCHES = "only the embedded server has a batch endpoint"
"""What to add to the message of an answer that says that there is none."""


def batch_base(base_url: str | None) -> str:
    """Return the base URL of the batch endpoint: `…/api/x` for `…/api/v1`.

    Raises:
        ConfigurationError: the URL is not one of an embedded server.
    """
    if base_url is None or not base_url.endswith("/v1"):
        raise ConfigurationError(
            "batch=True needs the batch endpoint of the embedded server: pass its base_url, ending in /api/v1"
        )
    return base_url.removesuffix("/v1") + "/x"


async def fetch_records(
    api: HttpApi,
    entity: str,
    keys: Sequence[ProfileKey],
    *,
    id_column: str | None,
    headers: Mapping[str, str],
    deadline: Deadline,
) -> dict[ProfileKey, SourceResult] | None:
    """Fetch several records of an entity; `None` if the entity does not exist.

    Raises:
        SourceError: a subclass says how it failed.
    """
    ids = [key.value for key in keys]
    response = await api.post(
        f"/entities/{entity}/records",
        json.dumps({"ids": ids}).encode(),
        deadline=deadline,
        headers={"content-type": "application/json", **headers},
        private=ids,
        accept=(200, 404),
    )
    if response.status == 404:
        return None
    rows = [obj(row, "a row") for row in array(obj(decode_json(response.body), "the answer").get("data"), "data")]
    if [row.get("id") for row in rows] != ids:
        raise SourceResponseError("the answers of a batch are not those of the ids that were asked for")
    return {key: _result(row, key, id_column) for key, row in zip(keys, rows, strict=True)}


def _result(row: Mapping[str, Any], key: ProfileKey, id_column: str | None) -> SourceResult:
    if row.get("found") is False:
        return NotFound()
    data = obj(row.get("record"), "record")
    if id_column is not None and str(data.get(id_column)) != key.value:
        raise SourceResponseError(
            "census answered with another record than was asked for, or without its id; check id_column"
        )
    return Found(make_record(data, id=key.value, source="census"), Freshness())
