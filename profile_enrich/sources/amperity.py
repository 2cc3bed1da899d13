"""Amperity: the Profile API, version 2025-07-31.

Source: the vendor's OpenAPI file of that version.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from starlette.datastructures import Secret

from .._deadline import Deadline
from ..profile import ProfileKey
from ._transport import MAX_BODY_BYTES, TransportChoice, TransportOptions
from .auth import TokenAuth
from .base import SourceResult, Validators

__all__ = ["AmperitySource", "Index", "Page", "ProfileRow"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Args:
        data: the rows of this page, in the vendor's order.
        next_token: where the next page begins; `None` on the last page.
        total: rows of all pages; only when it was asked for and the vendor said it.
    """

    data: tuple[T, ...]
    next_token: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """A named collection of profiles.

    Args:
        id: e.g. `"idx-xyz789"`.
        name: as people named it.
        description: where there is one.
        created_at: RFC 3339, as the vendor wrote it.
        updated_at: RFC 3339, as the vendor wrote it.
    """

    id: str
    name: str
    description: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ProfileRow:
    """One profile of a list. The `repr` shows neither its id nor its attributes.

    Args:
        id: the profile's id.
        index_id: the index that it is in.
        attributes: plain data, as the vendor sent them; values are strings by the vendor's document.
    """

    id: str
    index_id: str
    attributes: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<ProfileRow with {len(self.attributes)} attributes>"


class AmperitySource:
    """Looks profiles up in one index, by profile id or by any attribute that the index can be filtered by.

    `ProfileKey("cl-abc123")` asks for that id; `ProfileKey("a@b.example", type="email")` asks for the profiles whose `email` is
    exactly that.

    Args:
        index: which index: its id (whatever begins with `idx-` is taken as one), or its name, which is resolved once
            through `/indexes` and remembered. `None` is enough for `list_indexes()`.
        tenant: the tenant id; a sandbox has its own.
        token: a JWT as text, or an object of `profile_enrich.sources.auth` that fetches and renews one.
        base_url: of the API; from the region when not given.
        region: `"aws"`, `"azure"` or `"australia"`; ignored when `base_url` is given.
        api_version: sent with each request.
        on_multiple: what a filter that matches more than one profile gives: `"error"` (`AmbiguousMatch`) or `"first"`.
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
        *,
        index: str | None = None,
        tenant: str,
        token: str | Secret | TokenAuth,
        base_url: str | None = None,
        region: Literal["aws", "azure", "australia"] = "aws",
        api_version: str = "2025-07-31",
        on_multiple: Literal["error", "first"] = "error",
        transport: TransportChoice = "auto",
        allow_insecure_http: bool = False,
        max_body_bytes: int = MAX_BODY_BYTES,
        options: TransportOptions | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def name(self) -> str:
        """`"amperity"`."""
        raise NotImplementedError

    @property
    def namespace(self) -> str:
        """Base URL, tenant and index."""
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
        """Asks for one profile; see `ProfileSource.fetch`."""
        raise NotImplementedError

    async def list_indexes(
        self, *, limit: int = 25, next_token: str | None = None, with_total: bool = False, timeout: float = 10.0
    ) -> Page[Index]:
        """One page of the tenant's indexes (`GET /indexes`)."""
        raise NotImplementedError

    async def get_index(self, *, timeout: float = 10.0) -> Index:
        """The index that the source was made for (`GET /indexes/{id}`)."""
        raise NotImplementedError

    async def list_profiles(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 25,
        next_token: str | None = None,
        with_total: bool = False,
        timeout: float = 10.0,
    ) -> Page[ProfileRow]:
        """One page of the index's profiles that match all filters exactly (`GET /indexes/{id}/profiles`)."""
        raise NotImplementedError

    async def get_profile(self, id: str, *, timeout: float = 10.0) -> ProfileRow | None:
        """The profile with this id (`GET /indexes/{id}/profiles/{profile_id}`); `None` when there is none."""
        raise NotImplementedError

    def indexes(self, *, limit: int = 25, timeout: float = 10.0) -> AsyncIterator[Index]:
        """All indexes, page after page; `timeout` is for one page."""
        raise NotImplementedError

    def profile_pages(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 25,
        next_token: str | None = None,
        with_total: bool = False,
        timeout: float = 10.0,
    ) -> AsyncIterator[Page[ProfileRow]]:
        """All pages from `next_token` on (from the first, when not given); `timeout` is for one page."""
        raise NotImplementedError

    def profiles(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 25,
        next_token: str | None = None,
        timeout: float = 10.0,
    ) -> AsyncIterator[ProfileRow]:
        """All profiles that match, page after page; `timeout` is for one page."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Closes what the source opened, never a client that was handed in."""
        raise NotImplementedError
