"""The interface of a store of profiles: what the embedded server and `StoreSource` use of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .model import Collection, CollectionChanges, Dialect, StoredRecord, StorePage

__all__ = ["WRITE_WAIT", "ProfileStore"]

WRITE_WAIT = 10.0
"""Seconds that the write of a single record waits for another writer by default."""


class ProfileStore(Protocol):
    """A store of profiles: collections of records, looked up by key, paged through, filtered.

    `LocalStore` implements it with files. Every method raises `StoreError` when the store cannot be read. A collection
    is given by its name, its index id (`"idx-…"`), its entity id (an integer), or itself.
    """

    @property
    def namespace(self) -> str:
        """A name that two stores share only if they hold the same data, e.g. `"store:/data/profiles.store"`."""
        ...

    @property
    def blocking(self) -> bool:
        """Whether methods may wait for a network, so that an event loop must call them in a thread."""
        ...

    @property
    def check_every(self) -> float:
        """Seconds within which a newer generation is noticed."""
        ...

    @property
    def generation(self) -> int:
        """The generation that is being served; each change makes a new one."""
        ...

    @property
    def secret(self) -> bytes:
        """The key that page tokens are signed with, 32 random bytes that stay the same over refreshes."""
        ...

    def collections(self) -> tuple[Collection, ...]:
        """Return all collections, by entity id."""
        ...

    def find(self, ref: str | int) -> Collection | None:
        """Return the collection of this name, index id or entity id, or `None`."""
        ...

    def find_index(self, index_id: str) -> Collection | None:
        """Return the collection of this index id, or `None`."""
        ...

    def collection(self, ref: str | int) -> Collection:
        """Return the collection of this name, index id or entity id.

        Raises:
            StoreError: there is none; the message lists those that exist.
        """
        ...

    def get(self, collection: str | int | Collection, record_id: str) -> StoredRecord | None:
        """Return the record with this key, or `None`."""
        ...

    def get_payload(
        self, collection: str | int | Collection, record_id: str, dialect: Dialect = "census"
    ) -> bytes | None:
        """Return the record with this key as the JSON body of a vendor's response, or `None`."""
        ...

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
        """Return one page of the records that match all filters exactly.

        Raises:
            CursorError: the cursor was changed, or belongs to another collection or filter.
            ConfigurationError: an attribute is not filterable, or the limit is out of range.
        """
        ...

    def search(
        self, collection: str | int | Collection, filters: Mapping[str, str], *, limit: int = 2
    ) -> list[StoredRecord]:
        """Return the first records that match all filters exactly, with their own types.

        Raises:
            ConfigurationError: an attribute is not filterable.
        """
        ...

    def changes_since(
        self, collection: str | int | Collection, generation: int, *, limit: int = 100_000
    ) -> CollectionChanges | None:
        """Return the keys of the records written or deleted after a generation; `None`: everything may have changed."""
        ...

    def put_record(
        self,
        collection: str | int | Collection,
        record_id: str,
        record: Mapping[str, Any],
        *,
        wait: float = WRITE_WAIT,
    ) -> bool:
        """Write one record over what was there; return whether it is a new one.

        Raises:
            ConfigurationError: the record cannot be stored.
            StoreBusy: another writer held the store for longer than `wait` seconds.
        """
        ...

    def delete_record(self, collection: str | int | Collection, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
        """Remove one record; return whether there was one.

        Raises:
            StoreBusy: another writer held the store for longer than `wait` seconds.
        """
        ...

    def refresh(self) -> bool:
        """Look for a newer generation now; return whether there was one."""
        ...

    def close(self) -> None:
        """Close every file and connection. The store opens anew when it is used again."""
        ...
