"""The base class of all stores, which the embedded server and `StoreSource` use."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from .._utils.validation import check_int
from ..errors import ConfigurationError, StoreError
from .collection import MAX_PAGE, Collection, CollectionChanges, Dialect, StoredRecord, StorePage
from .files.page_token import filter_scope, open_cursor, sign_cursor

__all__ = ["WRITE_WAIT", "ProfileStore", "check_filters"]

WRITE_WAIT = 10.0
"""How long writing one record waits for another writer by default, in seconds."""


class ProfileStore(ABC):
    """A store of profiles: collections of records that can be looked up, paged and filtered.

    Every method raises `StoreError` if the store cannot be read. A collection is given by name, index id (`"idx-…"`),
    entity id (an integer), or as a `Collection`.
    """

    @property
    @abstractmethod
    def namespace(self) -> str:
        """A name that two stores share only if they hold the same data, e.g. `"store:/data/profiles.store"`."""

    @property
    @abstractmethod
    def blocking(self) -> bool:
        """Whether methods may wait for a network, so that an event loop must call them in a thread."""

    @property
    @abstractmethod
    def check_every(self) -> float:
        """Seconds within which a newer generation is noticed."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """The generation being served; each change makes a new one."""

    @property
    @abstractmethod
    def secret(self) -> bytes:
        """The key that page tokens are signed with, 32 random bytes that stay the same over refreshes."""

    @abstractmethod
    def collections(self) -> tuple[Collection, ...]:
        """Return all collections, by entity id."""

    @abstractmethod
    def find(self, ref: str | int) -> Collection | None:
        """Return the collection of this name, index id or entity id, or `None`."""

    def find_index(self, index_id: str) -> Collection | None:
        """Return the collection of this index id, or `None`."""
        return next((each for each in self.collections() if each.index_id == index_id), None)

    def collection(self, ref: str | int) -> Collection:
        """Return the collection of this name, index id or entity id.

        Raises:
            StoreError: there is none; the message lists those that exist.
        """
        found = self.find(ref)
        if found is None:
            names = ", ".join(repr(item.name) for item in self.collections()[:20]) or "none"
            raise StoreError(f"{self._description} has no collection {ref!r}; there are: {names}")
        return found

    def get(self, collection: str | int | Collection, record_id: str) -> StoredRecord | None:
        """Return the record with this key, or `None`.

        Raises:
            StoreError: the collection does not exist or cannot be read.
        """
        payload = self.get_payload(collection, record_id)
        return None if payload is None else StoredRecord(record_id, json.loads(payload)["data"])

    def get_payload(
        self, collection: str | int | Collection, record_id: str, dialect: Dialect = "census"
    ) -> bytes | None:
        """Return the record with this key as the JSON body of a vendor's response, or `None`.

        Census: `{"data":{…}}`; Amperity: `{"id":…,"index_id":…,"attributes":{…}}`, `None` also when the collection has
        no Amperity view.

        Raises:
            StoreError: the collection does not exist or cannot be read.
        """
        known = self._known(collection)
        if dialect == "amperity" and known.index_fields is None:
            return None
        return self._payload(known, record_id, dialect)

    def page(
        self,
        collection: str | int | Collection,
        filters: Mapping[str, str] | None = None,
        *,
        limit: int = 25,
        cursor: str | None = None,
        with_total: bool = False,
        dialect: Dialect = "amperity",
    ) -> StorePage:
        """Return one page of the records that match all filters exactly (case-sensitive, not trimmed).

        Records are ordered by their first insertion (`PostgresTables`: by key), and updates do not move them: paging
        during refreshes returns each remaining record exactly once, in its current version. New records come last.
        Values are compared as text, as the Amperity view shows them.

        Args:
            collection: the collection, by name or id.
            filters: text values by attribute; only `filterable` attributes.
            limit: the number of records, 1 to 1,000.
            cursor: the `next_cursor` of the previous page.
            with_total: also count all matches.
            dialect: the form of the payloads.

        Raises:
            CursorError: the cursor was modified, or belongs to another collection or filter.
            ConfigurationError: an attribute is not filterable, or the limit is out of range.
            StoreError: the collection does not exist or cannot be read.
        """
        check_int("limit", limit, most=MAX_PAGE)
        wanted, known = dict(filters or {}), self._known(collection)
        check_filters(known, wanted)
        if dialect == "amperity" and known.index_fields is None:
            raise ConfigurationError(f"the collection {known.name!r} has no Amperity view: it has more than 30 columns")
        scope = f"{known.index_id}\0{dialect}", wanted
        after = None if cursor is None else self._open_cursor(filter_scope(*scope), known, cursor)
        rows, total = self._rows(known, wanted, after, limit + 1, dialect=dialect, with_total=with_total)
        following = None
        if len(rows) > limit:
            rows = rows[:limit]
            following = self._sign_cursor(filter_scope(*scope), known, rows[-1][0])
        return StorePage(tuple([payload for _, _, payload in rows]), following, total)

    def search(
        self, collection: str | int | Collection, filters: Mapping[str, str], *, limit: int = 2
    ) -> list[StoredRecord]:
        """Return the first records that match all filters exactly, with their own types.

        Raises:
            ConfigurationError: an attribute is not filterable.
            StoreError: the collection does not exist or cannot be read.
        """
        known = self._known(collection)
        check_filters(known, filters)
        rows, _ = self._rows(known, filters, None, limit, dialect="census", with_total=False)
        return [StoredRecord(key, json.loads(payload)["data"]) for _, key, payload in rows]

    @abstractmethod
    def changes_since(
        self, collection: str | int | Collection, generation: int, *, limit: int = 100_000
    ) -> CollectionChanges | None:
        """Return the keys written or deleted after a generation; `None` if anything may have changed."""

    @abstractmethod
    def put_record(
        self,
        collection: str | int | Collection,
        record_id: str,
        record: Mapping[str, Any],
        *,
        wait: float = WRITE_WAIT,
    ) -> bool:
        """Insert or replace one record; return true if it is new.

        Raises:
            ConfigurationError: the record cannot be stored.
            StoreBusy: another writer held the store for longer than `wait` seconds.
        """

    @abstractmethod
    def delete_record(self, collection: str | int | Collection, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
        """Delete one record; return true if it existed.

        Raises:
            StoreBusy: another writer held the store for longer than `wait` seconds.
        """

    @abstractmethod
    def refresh(self) -> bool:
        """Check for a newer generation now; return true if there was one."""

    @abstractmethod
    def close(self) -> None:
        """Close all files and connections. The next use opens them again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what a store adds ------------------------------------------------------------------------------------------

    @property
    def _description(self) -> str:
        """The store, for messages."""
        return "the store"

    @abstractmethod
    def _payload(self, known: Collection, record_id: str, dialect: Dialect) -> bytes | None:
        """Return the body of a response; the collection has a view in this dialect."""

    @abstractmethod
    def _rows(
        self,
        known: Collection,
        filters: Mapping[str, str],
        after: Any,
        limit: int,
        *,
        dialect: Dialect,
        with_total: bool,
    ) -> tuple[Sequence[tuple[Any, str, bytes]], int | None]:
        """Return place, key and payload of the records after a place (`None`: from the first), and the total."""

    def _open_cursor(self, scope: bytes, known: Collection, cursor: str) -> Any:
        return open_cursor(self.secret, scope, known.id, cursor)

    def _sign_cursor(self, scope: bytes, known: Collection, place: Any) -> str:
        return sign_cursor(self.secret, scope, known.id, place)

    def _known(self, ref: str | int | Collection) -> Collection:
        return self.collection(ref.id if isinstance(ref, Collection) else ref)


def check_filters(collection: Collection, filters: Mapping[str, str]) -> None:
    """Check that all filters are of filterable attributes.

    Raises:
        ConfigurationError: one is not. It does not repeat the name, which comes from outside.
    """
    if not filters.keys() <= set(collection.filterable):
        allowed = ", ".join(collection.filterable) or "none"
        raise ConfigurationError(f"a filter names an attribute that is not filterable; filterable are: {allowed}")
