"""Census: the entity API of a workspace (`GET /entities`, `GET /entities/{id}/record`).

Source: the vendor's "Profile API" page and Postman collection; the embedded `ProfileAPI` speaks the same format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from starlette.datastructures import Secret

from .._deadline import Deadline
from ..profile import ProfileKey
from ._transport import MAX_BODY_BYTES, TransportChoice, TransportOptions
from .base import SourceResult, Validators

__all__ = ["CensusSource", "Entity"]


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity of the workspace.

    Args:
        id: what the record endpoint takes.
        name: as people named it, e.g. `"Users"`.
        library_id: the entity's library, where the vendor said it.
    """

    id: int
    name: str
    library_id: int | None = None


class CensusSource:
    """Looks records up by the primary id of one Census entity.

    Args:
        api_key: the workspace's key, with or without its `secret-token:` prefix, exactly as Census shows it.
        entity: which entity: its id as an `int`, or its name as a `str`. A name is resolved once, through `/entities`,
            and remembered; a text of digits that is nobody's name is taken as an id.
        base_url: of the API, e.g. `"http://127.0.0.1:8000/api/v1"` for the embedded server; from the region when not given.
        region: `"us"` or `"eu"`; ignored when `base_url` is given.
        transport: `"auto"` (best installed), `"aiohttp"`, `"httpx2"`, `"httpx"`, or a client object of one of these, which
            is used and never closed.
        allow_insecure_http: lets `base_url` be plain `http://` on a host that is not this machine.
        max_body_bytes: the largest answer that is read, in bytes after decompression.
        options: connection limits and TLS of the HTTP client that the source opens itself.

    Raises:
        ConfigurationError: an argument makes no sense; the message names it.
    """

    def __init__(
        self,
        api_key: str | Secret,
        *,
        entity: str | int,
        base_url: str | None = None,
        region: Literal["us", "eu"] = "us",
        transport: TransportChoice = "auto",
        allow_insecure_http: bool = False,
        max_body_bytes: int = MAX_BODY_BYTES,
        options: TransportOptions | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def name(self) -> str:
        """`"census"`."""
        raise NotImplementedError

    @property
    def namespace(self) -> str:
        """Base URL, entity and a one-way fingerprint of the key: two workspaces never share cache entries."""
        raise NotImplementedError

    @property
    def base_url(self) -> str:
        """Where it asks, without a trailing slash."""
        raise NotImplementedError

    @property
    def transport_name(self) -> str:
        """The HTTP client in use: `"aiohttp"`, `"httpx2"` or `"httpx"`."""
        raise NotImplementedError

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Asks for one record; see `ProfileSource.fetch`. Only keys of type `"id"` can be looked up."""
        raise NotImplementedError

    async def entities(self, *, timeout: float = 10.0) -> list[Entity]:
        """All entities that the key sees, in the vendor's order.

        Args:
            timeout: seconds for the whole call.

        Raises:
            SourceError: a subclass says how it failed.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Closes what the source opened, never a client that was handed in."""
        raise NotImplementedError
