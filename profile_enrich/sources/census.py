"""Source for the Census entity API of a workspace (`GET /entities`, `GET /entities/{id}/record`).

Reference: the vendor's "Profile API" page and Postman collection. The embedded `ProfileAPI` uses the same format.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from starlette.datastructures import Secret

from .._utils.deadline import Deadline
from .._utils.hidden_frames import hide_frames
from .._utils.validation import check_bool, check_text, is_int
from ..errors import ConfigurationError, InvalidKeyError, SourceResponseError
from ..profile import ProfileKey
from .base import ChangeBatch, Found, NotFound, NotModified, SourceResult, Validators
from .embedded_batch import MAX_BATCH, NO_BATCHES, batch_base, fetch_records
from .http import MAX_BODY_BYTES, HttpResponse, TransportChoice, TransportOptions, open_transport
from .http.caching_headers import freshness
from .http.json_body import WRONG_URL, array, decode_json, is_json_object, obj
from .http.vendor_api import HttpApi, fingerprint
from .named_collection import NamedCollection
from .record_from_json import make_record
from .urls import check_base_url, check_header, check_timeout, query_value

__all__ = ["CensusSource", "Entity"]

_REGIONS = {
    "us": "https://app.getcensus.com/api/v1",
    "eu": "https://app-eu.getcensus.com/api/v1",
}


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity of the workspace.

    Args:
        id: the id used in the record endpoint's path.
        name: its display name, e.g. `"Users"`.
        library_id: the entity's library, if the vendor sent it.
    """

    id: int
    name: str
    library_id: int | None = None


class CensusSource:
    """Look up records of one Census entity by their primary id.

    Args:
        api_key: the workspace's API key as Census shows it, with or without the `secret-token:` prefix.
        entity: the entity's id as an `int`, or its name as a `str`. A name is resolved once through `/entities` and
            cached; digits that are no entity's name count as an id.
        id_column: the column that holds the primary id, e.g. `"user_id"`. If given, a response with another id in this
            column is rejected, because it is another person's record.
        base_url: the base URL of the API, e.g. `"http://127.0.0.1:8000/api/v1"` for the embedded server; derived from
            `region` by default.
        region: `"us"` or `"eu"`; ignored when `base_url` is given.
        transport: `"auto"` (the fastest one installed), `"aiohttp"`, `"httpx2"`, `"httpx"`, or a client object of one
            of these. A client that you pass is never closed.
        allow_insecure_http: allow plain `http://` to a host other than this machine.
        max_body_bytes: the largest response accepted, in bytes after decompression.
        options: connection limits and TLS settings of the HTTP client that the source opens.
        batch: combine concurrent lookups into one call. Only the embedded server supports this. Its API key must be
            allowed to read whole records or, if `id_column` is given, at least that column.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        api_key: str | Secret,
        *,
        entity: str | int,
        id_column: str | None = None,
        base_url: str | None = None,
        region: Literal["us", "eu"] = "us",
        transport: TransportChoice = "auto",
        allow_insecure_http: bool = False,
        max_body_bytes: int = MAX_BODY_BYTES,
        options: TransportOptions | None = None,
        batch: bool = False,
    ) -> None:
        self._key = Secret(check_header(api_key, "api_key"))
        if not is_int(entity) and not (isinstance(entity, str) and entity.strip()):
            raise ConfigurationError("entity must be the entity's id as an int, or its name as a string")
        if isinstance(entity, int) and entity < 0:
            raise ConfigurationError("entity: an id is not negative")
        if base_url is None and (not isinstance(region, str) or region not in _REGIONS):
            raise ConfigurationError(f"region must be one of {', '.join(map(repr, _REGIONS))}")
        self._id_column = None if id_column is None else check_text("id_column", id_column)
        base = check_base_url(
            _REGIONS[region] if base_url is None else base_url, allow_insecure_http=allow_insecure_http
        )
        self._options = options
        self._transport = open_transport(transport, options=options, max_body_bytes=max_body_bytes)
        self._api = HttpApi("census", base, self._transport, secrets=(str(self._key),), hints={404: WRONG_URL})
        self._batches = (
            HttpApi(
                "census",
                batch_base(base_url and base),
                self._transport,
                secrets=(str(self._key),),
                hints=dict.fromkeys((401, 403, 405), NO_BATCHES),
            )
            if check_bool("batch", batch)
            else None
        )
        self._namespace = f"census|{base}|{entity!r}|{fingerprint(str(self._key))}"
        self._entity = NamedCollection(
            "entity",
            str(entity) if isinstance(entity, int) else entity,
            self._list,
            is_id=isinstance(entity, int),
        )

    @property
    def name(self) -> str:
        """`"census"`."""
        return "census"

    @property
    def namespace(self) -> str:
        """Base URL, entity and a one-way fingerprint of the API key, so that workspaces never share cache entries."""
        return self._namespace

    @property
    def base_url(self) -> str:
        """The base URL of the API, without a trailing slash."""
        return self._api.base_url

    @property
    def transport_name(self) -> str:
        """The HTTP client in use: `"aiohttp"`, `"httpx2"` or `"httpx"`."""
        return self._transport.name

    @hide_frames
    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Fetch one record; see `ProfileSource.fetch`. Only keys of type `"id"` can be looked up.

        A 404 counts as a missing record only if its body is JSON and the entity is known to exist: it was listed, or
        one of its records was read, in the last few minutes. A 404 for an entity that is not listed is a
        `ConfigurationError`. Any other 404 is a `SourceError`: it may come from a wrong `base_url`, a proxy or another
        server.
        """
        if key.type != "id":
            raise InvalidKeyError("census looks records up by the entity's primary id only; use a key of type 'id'")
        record_id = query_value(key.value)
        entity = await self._entity.id(deadline)
        for _ in range(2):
            response = await self._record(entity, record_id, key, deadline, validators)
            result = self._read(response, key)
            if not isinstance(result, NotFound):
                self._entity.seen(entity)
                return result
            moved = await self._entity.confirm(entity, deadline)
            if moved is None:
                break
            entity, validators = moved, None
        return NotFound()

    def _read(self, response: HttpResponse, key: ProfileKey) -> SourceResult:
        """Parse the response of the record endpoint. A 404 whose body is not a JSON object is not the vendor's."""
        if response.status == 304:
            return NotModified(freshness(response.headers))
        if response.status == 404:
            if not is_json_object(response.body):
                raise self._api.failure(response, (key.value,))
            return NotFound()
        body = obj(decode_json(response.body), "the answer")
        if "data" not in body:
            raise SourceResponseError("census's answer is not as documented: it has no data")
        if body["data"] is None:
            return NotFound()
        data = obj(body["data"], "data")
        if self._id_column is not None and str(data.get(self._id_column)) != key.value:
            raise SourceResponseError(
                "census answered with another record than was asked for, or without its id; check id_column"
            )
        return Found(make_record(data, id=key.value, source="census"), freshness(response.headers))

    async def warm_up(self, *, deadline: Deadline) -> None:
        """Connect and look up the entity; see `WarmUpSource.warm_up`."""
        await self._entity.resolve(deadline)

    @property
    def batch_size(self) -> int:
        """The largest number of records in one call: 100 with `batch=True`, otherwise 1."""
        return MAX_BATCH if self._batches is not None else 1

    @hide_frames
    async def fetch_many(self, keys: Sequence[ProfileKey], *, deadline: Deadline) -> Mapping[ProfileKey, SourceResult]:
        """Fetch several records in one call; see `BatchSource.fetch_many`.

        Keys of a type other than `"id"` are left out of the result.

        Raises:
            ConfigurationError: the source was made without `batch=True`; the entity, or the endpoint, does not exist.
            SourceError: a subclass says how it failed.
        """
        if self._batches is None:
            raise ConfigurationError("the source was made without batch=True")
        wanted = [key for key in keys if key.type == "id"]
        if not wanted:
            return {}
        entity: str | None = await self._entity.id(deadline)
        for _ in range(2):
            if entity is None:
                break
            found = await fetch_records(
                self._batches,
                entity,
                wanted,
                id_column=self._id_column,
                headers=self._headers(),
                deadline=deadline,
            )
            if found is not None:
                return found
            entity = await self._entity.confirm(entity, deadline)
        raise ConfigurationError(f"nothing is at the base URL for batches: {NO_BATCHES}")

    async def _record(
        self, entity: str, record_id: str, key: ProfileKey, deadline: Deadline, validators: Validators | None
    ) -> HttpResponse:
        return await self._api.get(
            f"/entities/{entity}/record?record_id={record_id}",
            deadline=deadline,
            headers=self._headers(),
            private=(key.value,),
            validators=validators,
            accept=(200, 404),
        )

    async def changes(self, after: str | None = None) -> AsyncGenerator[ChangeBatch]:
        """Follow the changes of the entity; see `ChangeSource.changes`. Only the embedded server has a change feed.

        The feed has a separate connection, made with `options`, even if `transport` is a client that you passed.
        """
        entity = await self._entity.id(Deadline(10.0))
        from .embedded_change_feed import read_changes  # Imported here: httpx imports click.

        feed = read_changes(
            self._api,
            f"/entities/{entity}/changes",
            headers=self._headers(),
            private=(),
            after=after,
            options=self._options,
        )
        async with contextlib.aclosing(feed):
            async for change in feed:
                yield change

    @hide_frames
    async def entities(self, *, timeout: float = 10.0) -> list[Entity]:
        """Fetch all entities that the API key can read, in the vendor's order.

        Args:
            timeout: seconds for the whole call.

        Raises:
            SourceError: a subclass says how it failed.
        """
        return await self._entities(Deadline(check_timeout(timeout)))

    async def _entities(self, deadline: Deadline) -> list[Entity]:
        response = await self._api.get("/entities", deadline=deadline, headers=self._headers())
        rows = array(obj(decode_json(response.body), "the answer").get("data"), "data")
        return [_entity(obj(row, "an entity")) for row in rows]

    async def _list(self, deadline: Deadline) -> list[tuple[str, str]]:
        return [(str(entity.id), entity.name) for entity in await self._entities(deadline)]

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key!s}"}

    async def aclose(self) -> None:
        """Close what the source opened; a client that you passed stays open."""
        await self._entity.aclose()
        await self._transport.aclose()

    def __repr__(self) -> str:
        return f"<CensusSource {self._entity} at {self._api.base_url}>"


def _entity(row: dict[str, object]) -> Entity:
    id, name, library = row.get("id"), row.get("name"), row.get("library_id")
    if not is_int(id) or not isinstance(name, str):
        raise SourceResponseError("census's answer is not as documented: an entity has no number as id, or no name")
    return Entity(id, name, library if is_int(library) else None)
