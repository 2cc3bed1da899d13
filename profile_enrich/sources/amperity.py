"""Source for Amperity's Profile API, version 2025-07-31.

Reference: the vendor's OpenAPI file of that version.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Literal

from starlette.datastructures import Secret

from .._utils.deadline import Deadline
from .._utils.hidden_frames import hide_frames
from .._utils.validation import check_text
from ..errors import AmbiguousMatch, ConfigurationError, SourceAuthError, SourceResponseError
from ..profile import ProfileKey
from .amperity_messages import (
    Index,
    Page,
    ProfileRow,
    advance,
    pages,
    read_index,
    read_page,
    read_profile,
    says_not_found,
)
from .amperity_urls import base_of, filters_of, index_path, query
from .base import ChangeBatch, Found, Freshness, NotFound, NotModified, SourceResult, Validators
from .bearer_tokens import StaticToken, TokenAuth
from .http import MAX_BODY_BYTES, HttpResponse, TransportChoice, TransportOptions, open_transport
from .http.caching_headers import freshness
from .http.json_body import WRONG_URL, decode_json
from .http.vendor_api import HttpApi
from .named_collection import NamedCollection
from .record_from_json import id_tag, make_record
from .urls import check_base_url, check_header, check_timeout, path_segment

__all__ = ["AmperitySource", "Index", "Page", "ProfileRow"]


_LISTING = 100


class AmperitySource:
    """Look up profiles in one Amperity index, by profile id or by any filterable attribute.

    `ProfileKey("cl-abc123")` fetches the profile with that id; `ProfileKey("a@b.example", type="email")` fetches the
    profile whose `email` equals that value.

    Args:
        index: the id of the index (any value that starts with `idx-`), or its name, which is resolved once through
            `/indexes` and cached. `list_indexes()` also works with `None`.
        tenant: the tenant id; a sandbox has its own id.
        token: a JWT as text, or an object from `profile_enrich.sources.bearer_tokens` that fetches and renews one.
        base_url: the base URL of the API; derived from `region` by default.
        region: `"aws"`, `"azure"` or `"australia"`; ignored when `base_url` is given.
        api_version: the API version sent with each request.
        on_multiple: what to do when a filter matches more than one profile: `"error"` (raise `AmbiguousMatch`) or
            `"first"`.
        transport: `"auto"` (the fastest one installed), `"aiohttp"`, `"httpx2"`, `"httpx"`, or a client object of one
            of these. A client that you pass is never closed.
        allow_insecure_http: allow plain `http://` to a host other than this machine.
        max_body_bytes: the largest response accepted, in bytes after decompression.
        options: connection limits and TLS settings of the HTTP client that the source opens.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
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
        if index is not None:
            check_text("index", index)
        if on_multiple not in ("error", "first"):
            raise ConfigurationError("on_multiple must be 'error' or 'first'")
        self._tenant = check_header(tenant, "tenant")
        version = check_header(api_version, "api_version")
        if isinstance(token, str | Secret):
            self._auth: TokenAuth = StaticToken(token)
        elif isinstance(token, TokenAuth):
            self._auth = token
        else:
            raise ConfigurationError("token must be a string, or StaticToken, ClientCredentials or IssuerToken")
        base = base_of(region, self._tenant) if base_url is None else base_url
        base = check_base_url(base, allow_insecure_http=allow_insecure_http)
        self._headers = {"amperity-tenant": self._tenant, "api-version": version}
        self._first = on_multiple == "first"
        self._options = options
        self._transport = open_transport(transport, options=options, max_body_bytes=max_body_bytes)
        # The vendor documents both statuses for an unknown version.
        hint = f"it also responds this way when it does not support api_version {version}"
        self._api = HttpApi("amperity", base, self._transport, hints={400: hint, 401: hint, 404: WRONG_URL})
        self._namespace = f"amperity|{base}|{self._tenant}|{index}"
        self._index = (
            None if index is None else NamedCollection("index", index, self._list, is_id=index.startswith("idx-"))
        )

    @property
    def name(self) -> str:
        """`"amperity"`."""
        return "amperity"

    @property
    def namespace(self) -> str:
        """Base URL, tenant and index."""
        return self._namespace

    @property
    def base_url(self) -> str:
        """The base URL of the API, without a trailing slash."""
        return self._api.base_url

    @property
    def transport_name(self) -> str:
        """The HTTP client in use: `"aiohttp"`, `"httpx2"` or `"httpx"`."""
        return self._transport.name

    # --- one profile ------------------------------------------------------------------------------------------------

    @hide_frames
    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Fetch one profile; see `ProfileSource.fetch`.

        A profile whose id or attribute differs from the requested one is rejected (`SourceResponseError`), so that a
        vendor or proxy that mixes up profiles cannot show one person's data to another.

        Raises:
            AmbiguousMatch: the filter matches more than one profile, and `on_multiple` is `"error"`.
        """
        if key.type == "id":
            response = await self._profile(key.value, deadline, validators)
            if response is None:
                return NotFound()
            kept = freshness(response.headers)
            if response.status == 304:
                return NotModified(kept)
            row = _same(read_profile(decode_json(response.body)), key.value)
            if self._index is not None:
                self._index.seen(row.index_id)
            return _found(row, kept)
        return await self._fetch_by_filter(key, deadline)

    async def warm_up(self, *, deadline: Deadline) -> None:
        """Connect, fetch a token and look up the index; see `WarmUpSource.warm_up`."""
        if self._index is not None:
            await self._index.resolve(deadline)

    async def _fetch_by_filter(self, key: ProfileKey, deadline: Deadline) -> SourceResult:
        rows: list[ProfileRow] = []
        kept = Freshness()
        token: str | None = None
        seen: set[str] = set()
        while True:  # One page in practice; a short page need not be the last one.
            path = query(filters_of({key.type: key.value}), 2, token, False)
            response = await self._in_index("/profiles" + path, deadline, private=(key.value,))
            if response is None:
                return NotFound()
            page = read_page(response.body, read_profile)
            kept = freshness(response.headers)
            rows.extend(page.data)
            if (rows and self._first) or len(rows) > 1 or page.next_token is None:
                break
            token = advance(page.next_token, seen)
        for row in rows:
            value = row.attributes.get(key.type)
            if isinstance(value, str) and value != key.value:
                raise SourceResponseError("amperity answered with a profile that does not match the filter")
        if len(rows) > 1 and not self._first:
            raise AmbiguousMatch(
                f"more than one profile of the index has this {key.type}; look up by id, or pass on_multiple='first'"
            )
        if not rows:  # An empty page from a wrong server must not count as a missing profile.
            return NotFound() if await self._confirm_index(deadline) else await self._fetch_by_filter(key, deadline)
        # The change feed names profiles by id; the tag lets it invalidate this entry, too.
        return replace(_found(rows[0], kept), tags=frozenset((id_tag(rows[0].id),)))

    async def _profile(self, id: str, deadline: Deadline, validators: Validators | None = None) -> HttpResponse | None:
        segment = path_segment(id, "a profile id")
        return await self._in_index(f"/profiles/{segment}", deadline, private=(id,), validators=validators)

    async def changes(self, after: str | None = None) -> AsyncGenerator[ChangeBatch]:
        """Follow the changes of the index; see `ChangeSource.changes`. Only the embedded server has a change feed.

        The feed has a separate connection, made with `options`, even if `transport` is a client that you passed.
        """
        if self._index is None:
            raise ConfigurationError("index was not given; list_indexes() lists them")
        path = index_path(await self._index.id(Deadline(10.0)), "/changes")
        refused: str | None = None
        while True:
            deadline = Deadline(10.0)
            token = await self._auth.token(self._transport, deadline=deadline, refused=refused)
            from .embedded_change_feed import read_changes  # Imported here: httpx imports click.

            feed = read_changes(
                self._api,
                path,
                headers={**self._headers, "authorization": f"Bearer {token}"},
                private=(token,),
                after=after,
                options=self._options,
            )
            try:
                async with contextlib.aclosing(feed):
                    async for change in feed:
                        yield change
                return
            except SourceAuthError as error:
                if error.status != 401 or refused is not None or isinstance(self._auth, StaticToken):
                    raise
            refused = token  # The token expired: fetch a new one, once.

    # --- the four endpoints -----------------------------------------------------------------------------------------

    @hide_frames
    async def list_indexes(
        self, *, limit: int = 25, next_token: str | None = None, with_total: bool = False, timeout: float = 10.0
    ) -> Page[Index]:
        """Fetch one page of the tenant's indexes (`GET /indexes`).

        Args:
            limit: rows of a page, at least 1; the vendor may give fewer.
            next_token: the token of the previous page; `None` for the first page.
            with_total: ask for the number of all rows, which can be slow.
            timeout: seconds for the whole call.

        Raises:
            SourceError: a subclass says how it failed.
        """
        return await self._indexes(Deadline(check_timeout(timeout)), limit, next_token, with_total)

    @hide_frames
    async def get_index(self, *, timeout: float = 10.0) -> Index:
        """Fetch the index of this source (`GET /indexes/{id}`).

        Args:
            timeout: seconds for the whole call.

        Raises:
            ConfigurationError: there is no such index, or none was given.
            SourceError: a subclass says how else it failed.
        """
        deadline = Deadline(check_timeout(timeout))
        response = await self._in_index("", deadline)
        if response is None:
            raise ConfigurationError("the index does not exist; list_indexes() shows those that do")
        return read_index(decode_json(response.body))

    @hide_frames
    async def list_profiles(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 25,
        next_token: str | None = None,
        with_total: bool = False,
        timeout: float = 10.0,
        keep_text: bool = False,
    ) -> Page[ProfileRow]:
        """Fetch one page of the profiles that match all filters (`GET /indexes/{id}/profiles`).

        Args:
            filters: values by attribute, compared exactly, including case and spaces.
            limit: rows of a page, at least 1; the vendor may give fewer.
            next_token: the token of the previous page; `None` for the first page.
            with_total: ask for the number of all rows, which can be slow.
            timeout: seconds for the whole call.
            keep_text: keep the text of each profile as well, in `Page.texts`, where the answer's layout allows it.

        Raises:
            ConfigurationError: there is no such index, or none was given.
            InvalidKeyError: a filter is not text.
            SourceError: a subclass says how else it failed.
        """
        wanted = dict(filters or {})
        path = "/profiles" + query(filters_of(wanted), limit, next_token, with_total)
        deadline = Deadline(check_timeout(timeout))
        response = await self._in_index(path, deadline, private=tuple(wanted.values()))
        if response is None:
            raise ConfigurationError("the index does not exist; list_indexes() shows those that do")
        return read_page(response.body, read_profile, keep_text=keep_text)

    @hide_frames
    async def get_profile(self, id: str, *, timeout: float = 10.0) -> ProfileRow | None:
        """Fetch one profile by id (`GET /indexes/{id}/profiles/{profile_id}`); `None` if it does not exist.

        Args:
            id: the vendor's id of the profile.
            timeout: seconds for the whole call.

        Raises:
            ConfigurationError: there is no such index, or none was given.
            InvalidKeyError: the id cannot stand in a URL.
            SourceError: a subclass says how else it failed.
        """
        response = await self._profile(ProfileKey(id).value, Deadline(check_timeout(timeout)))
        return None if response is None else _same(read_profile(decode_json(response.body)), id)

    # --- all pages --------------------------------------------------------------------------------------------------

    async def indexes(self, *, limit: int = 25, timeout: float = 10.0) -> AsyncIterator[Index]:
        """Iterate over all indexes, page by page; `timeout` is in seconds per page."""
        async for page in pages(lambda token: self.list_indexes(limit=limit, next_token=token, timeout=timeout), None):
            for index in page.data:
                yield index

    async def profile_pages(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 25,
        next_token: str | None = None,
        with_total: bool = False,
        timeout: float = 10.0,
    ) -> AsyncIterator[Page[ProfileRow]]:
        """Iterate over the pages, starting at `next_token` (default: the first); `timeout` is in seconds per page.

        To resume later, pass the `next_token` of the last page that you read.
        """
        wanted = dict(filters or {})

        def load(token: str | None) -> Coroutine[Any, Any, Page[ProfileRow]]:
            return self.list_profiles(wanted, limit=limit, next_token=token, with_total=with_total, timeout=timeout)

        async for page in pages(load, next_token):
            yield page

    async def profiles(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 25,
        next_token: str | None = None,
        timeout: float = 10.0,
    ) -> AsyncIterator[ProfileRow]:
        """Iterate over all matching profiles, page by page; `timeout` is in seconds per page."""
        async for page in self.profile_pages(filters, limit=limit, next_token=next_token, timeout=timeout):
            for row in page.data:
                yield row

    # --- the wire ---------------------------------------------------------------------------------------------------

    async def _in_index(
        self,
        path: str,
        deadline: Deadline,
        *,
        private: Collection[str] = (),
        validators: Validators | None = None,
    ) -> HttpResponse | None:
        """Request a path below the index. `None` means that the index exists and the vendor has no such resource."""
        if self._index is None:
            raise ConfigurationError("index was not given; list_indexes() lists them")
        id = await self._index.id(deadline)
        for _ in range(2):
            response = await self._get(index_path(id, path), deadline, private, validators, (200, 404))
            if response.status != 404:
                return response
            if not says_not_found(response.body):
                raise self._api.failure(response, private)
            moved = await self._index.confirm(id, deadline)
            if moved is None:
                break
            id, validators = moved, None
        return None

    async def _confirm_index(self, deadline: Deadline) -> bool:
        """Confirm that the requested index exists; false if its name now belongs to another index."""
        if self._index is None:
            raise ConfigurationError("index was not given; list_indexes() lists them")
        return await self._index.confirm(await self._index.id(deadline), deadline) is None

    async def _get(
        self,
        path: str,
        deadline: Deadline,
        private: Collection[str] = (),
        validators: Validators | None = None,
        accept: Collection[int] = (200,),
    ) -> HttpResponse:
        token = await self._auth.token(self._transport, deadline=deadline)
        response = await self._ask(path, token, deadline, private, validators, (*accept, 401))
        if response.status == 401:
            renewed = await self._auth.token(self._transport, deadline=deadline, refused=token)
            if renewed == token:
                raise self._api.failure(response, (*private, token))
            response = await self._ask(path, renewed, deadline, private, validators, accept)
        return response

    async def _ask(
        self,
        path: str,
        token: str,
        deadline: Deadline,
        private: Collection[str],
        validators: Validators | None,
        accept: Collection[int],
    ) -> HttpResponse:
        return await self._api.get(
            path,
            deadline=deadline,
            headers={**self._headers, "authorization": f"Bearer {token}"},
            private=(*private, token),
            validators=validators,
            accept=accept,
        )

    async def _indexes(
        self, deadline: Deadline, limit: int, next_token: str | None, with_total: bool = False
    ) -> Page[Index]:
        response = await self._get("/indexes" + query([], limit, next_token, with_total), deadline)
        return read_page(response.body, read_index)

    async def _list(self, deadline: Deadline) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        async for page in pages(lambda token: self._indexes(deadline, _LISTING, token), None):
            found.extend((index.id, index.name) for index in page.data)
        return found

    async def aclose(self) -> None:
        """Close what the source opened; a client that you passed stays open."""
        if self._index is not None:
            await self._index.aclose()
        await self._auth.aclose()
        await self._transport.aclose()

    def __repr__(self) -> str:
        return f"<AmperitySource {self._index or 'without an index'} at {self._api.base_url}>"


def _same(row: ProfileRow, id: str) -> ProfileRow:
    if row.id != id:
        raise SourceResponseError("amperity answered with another profile than the one that was asked for")
    return row


def _found(row: ProfileRow, kept: Freshness) -> Found:
    return Found(make_record(row.attributes, id=row.id, source="amperity"), kept)
