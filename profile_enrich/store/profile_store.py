"""The `ProfileStore` protocol, which the embedded server and `StoreSource` use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .model import Collection, CollectionChanges, Dialect, StoredRecord, StorePage

__all__ = ["WRITE_WAIT", "ProfileStore"]

WRITE_WAIT = 10.0
"""How long writing one record waits for another writer by default, in seconds."""


class ProfileStore(Protocol):
    """A store of profiles: collections of records that can be looked up, paged and filtered.

    Every method raises `StoreError` if the store cannot be read. A collection is given by name, index id (`"idx-…"`),
    entity id (an integer), or as a `Collection`.
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
        """The generation being served; each change makes a new one."""
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
        """Return the keys written or deleted after a generation; `None` if anything may have changed."""
        ...

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
        ...

    def delete_record(self, collection: str | int | Collection, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
        """Delete one record; return true if it existed.

        Raises:
            StoreBusy: another writer held the store for longer than `wait` seconds.
        """
        ...

    def refresh(self) -> bool:
        """Check for a newer generation now; return true if there was one."""
        ...

    def close(self) -> None:
        """Close all files and connections. The next use opens them again."""
        ...
