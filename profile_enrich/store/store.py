"""Reads a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from .model import Collection, Dialect, StoredRecord, StorePage

__all__ = ["ProfileStore"]


class ProfileStore:
    """Reads a store that `build_store` wrote. Thread-safe, fork-safe; each lookup takes microseconds and never waits.

    Args:
        path: the store's directory.
        check_every: seconds between two looks at whether a newer generation is there.

    Raises:
        StoreError: there is no store, or it is of another format.
    """

    def __init__(self, path: Path | str, *, check_every: float = 1.0) -> None:
        raise NotImplementedError

    @property
    def path(self) -> Path:
        """The store's directory."""
        raise NotImplementedError

    @property
    def generation(self) -> int:
        """The generation that is being served; each build makes a new one."""
        raise NotImplementedError

    def collections(self) -> tuple[Collection, ...]:
        """All collections, by id."""
        raise NotImplementedError

    def collection(self, ref: str | int) -> Collection:
        """The collection of this name, index id (`"idx-…"`) or entity id (an integer).

        Raises:
            StoreError: there is none; it lists those that are there.
        """
        raise NotImplementedError

    def find(self, ref: str | int) -> Collection | None:
        """As `collection`, but `None` when there is none."""
        raise NotImplementedError

    def get(self, collection: str | int | Collection, record_id: str) -> StoredRecord | None:
        """The record with this key, or `None`."""
        raise NotImplementedError

    def get_payload(
        self, collection: str | int | Collection, record_id: str, dialect: Dialect = "census"
    ) -> bytes | None:
        """The record with this key as the JSON body of a vendor's response, or `None`.

        Census: `{"data":{…}}`; Amperity: `{"id":…,"index_id":…,"attributes":{…}}`.
        """
        raise NotImplementedError

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
        """One page of the records that match all filters exactly (case-sensitive, nothing trimmed).

        Args:
            collection: which.
            filters: attribute and text value; only `filterable` attributes.
            limit: how many records, 1 to 1,000.
            cursor: `next_cursor` of the page before.
            with_total: also count all matches.
            dialect: the form of the payloads.

        Raises:
            CursorError: the cursor was changed, or is of another collection, filter or generation.
            ConfigurationError: an attribute is not filterable, or the limit is out of range.
        """
        raise NotImplementedError

    def search(
        self, collection: str | int | Collection, filters: Mapping[str, str], *, limit: int = 2
    ) -> list[StoredRecord]:
        """The first records that match all filters exactly, with their own types."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes every connection. The store opens anew when it is used again."""
        raise NotImplementedError

    def __enter__(self) -> ProfileStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
