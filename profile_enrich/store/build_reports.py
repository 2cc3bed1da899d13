"""Reports of builds and refreshes, and their progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .collection import Collection

__all__ = ["BuildProgress", "BuildReport", "CollectionReport", "RefreshReport", "RefreshedCollection"]


@dataclass(frozen=True, slots=True)
class RefreshedCollection:
    """The result of a refresh for one collection.

    Args:
        collection: the collection after the change.
        read: rows read.
        inserted: new records.
        updated: changed records.
        unchanged: rows equal to the stored record.
        deleted: deleted records.
        asked_deletes: the number of keys, and of rows marked as deleted, to delete.
        unmatched_deletes: how many of them matched no record.
        duplicates: rows replaced by another row with the same key.
        rejected: rejected rows, by reason.
        first_rejected: the number of the first rejected row, or `None`.
        merged: whether the layers of changes were merged into a new base.
    """

    collection: Collection
    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    asked_deletes: int = 0
    unmatched_deletes: int = 0
    duplicates: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict[str, int])
    first_rejected: int | None = None
    merged: bool = False


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """The result of `refresh_store`.

    Args:
        path: the store's directory; `None` for a store in a database.
        generation: the generation now served; unchanged if nothing changed.
        collections: one report per collection, in the given order.
        seconds: the duration in seconds.
    """

    path: Path | None
    generation: int
    collections: tuple[RefreshedCollection, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """The result of building one collection.

    Args:
        collection: the collection after the change.
        read: rows read.
        stored: records stored.
        duplicates: rows replaced by another row with the same key.
        first_duplicate: the number of the first row with an earlier row's key (1 is the first data row), or `None`.
        rejected: rejected rows, by reason, e.g. `{"the key is missing or empty": 3}`.
        first_rejected: the number of the first rejected row, or `None`.
        first_rejected_line: the line of the first rejected row if known, or `None`.
        warnings: messages for the user, without values.
    """

    collection: Collection
    read: int
    stored: int
    duplicates: int = 0
    first_duplicate: int | None = None
    rejected: Mapping[str, int] = field(default_factory=dict[str, int])
    first_rejected: int | None = None
    first_rejected_line: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The result of `build_store`.

    Args:
        path: the store's directory; `None` for a store in a database.
        generation: its new generation.
        collections: one report per collection, in the given order.
        seconds: the duration in seconds.
    """

    path: Path | None
    generation: int
    collections: tuple[CollectionReport, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """The progress of a build, passed to the `progress` callable a few times per second.

    Args:
        collection: the name of the collection being built.
        rows: the rows read so far.
        total: the number of all rows, if known in advance.
    """

    collection: str
    rows: int
    total: int | None = None
