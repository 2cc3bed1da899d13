"""What a store is described with: collections, columns, records, pages, the report of a build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from .input_types import Format, SqlQuery, Stream

__all__ = [
    "MAX_INDEX_FIELDS",
    "MAX_PAGE",
    "MAX_SHRINK",
    "BuildProgress",
    "BuildReport",
    "Collection",
    "CollectionChanges",
    "CollectionReport",
    "CollectionSpec",
    "Column",
    "Dialect",
    "RefreshReport",
    "RefreshSpec",
    "RefreshedCollection",
    "StorePage",
    "StoredRecord",
]

MAX_INDEX_FIELDS = 30
"""An Amperity index has at most so many fields (the vendor's limit)."""

MAX_PAGE = 1000
"""The largest page."""

MAX_SHRINK = 0.2
"""The share of its records that a refresh may lose by default."""

Dialect = Literal["census", "amperity"]
"""In whose form a payload is: Census records keep their own types, Amperity attributes are strings."""

ColumnType = Literal["text", "integer", "number", "boolean", "json"]
"""What the values of a column are in the Census view. Dates and times are text."""


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """One collection to build: a Census entity and an Amperity index at once.

    Args:
        name: the entity's and the index's name, 1 to 200 characters.
        source: a CSV, TSV, JSONL or Parquet file (told by its suffix; `.gz` is fine for CSV and JSONL), a `SqlQuery`, a
            `Stream`, or an iterable of dicts.
        key: the column that identifies a record. Its values are looked up as text, exactly.
        filterable: the columns that pages can be filtered by, and that `StoreSource` can look up by.
        fields: the columns to keep, in this order; all of them by default. The key column is always kept.
        index_fields: the columns that the Amperity view shows, at most 30; all kept columns by default. A collection of
            more than 30 columns that does not say which has no Amperity view.
        types: overrides of what is found out about a CSV file's columns: `text`, `integer`, `number` or `boolean`.
            Without it, a column has the type that it has in the collection already; a new one becomes a number only if
            every value comes out of a number as the same text, so `02134` and `1.10` stay text.
        encoding: of a CSV or JSONL file: `utf-8` (default), `latin-1` or `utf-16`.
        delimiter: of a CSV file, one character; found out from the header line by default.
        description: shown in the Amperity view.
        format: of a file whose suffix does not say it: `csv`, `tsv`, `jsonl` or `parquet`.
        rejects: a file for the rows that are left out, as JSON lines with the reason. With it, a broken line of a CSV
            or JSONL file is left out too; without it, a broken line ends the build.
    """

    name: str
    source: Path | str | SqlQuery | Stream | Iterable[Mapping[str, Any]]
    key: str = "id"
    filterable: Sequence[str] = ()
    fields: Sequence[str] | None = None
    index_fields: Sequence[str] | None = None
    types: Mapping[str, ColumnType] = field(default_factory=dict[str, ColumnType])
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"
    delimiter: str | None = None
    description: str = ""
    format: Format | None = None
    rejects: Path | str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a collection.

    Args:
        name: as in the source.
        type: what its values are.
        known: false when no record had a value yet, so that values of any type may come.
    """

    name: str
    type: ColumnType
    known: bool = True


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as it is in the store.

    Args:
        id: the Census entity id; it stays the same over rebuilds.
        index_id: the Amperity index id, made of the name; it stays the same over rebuilds.
        name: of the entity and the index.
        description: free text.
        key: the name of the key column.
        columns: all of them, in order.
        filterable: the names of the columns that pages can be filtered by.
        index_fields: the names of the columns of the Amperity view; `None` when there is none (too many columns).
        rows: how many records it has.
        generation: counts the rebuilds of the store.
        created_at: when it was first built, UTC.
        updated_at: when it was last built, UTC.
    """

    id: int
    index_id: str
    name: str
    description: str
    key: str
    columns: tuple[Column, ...]
    filterable: tuple[str, ...]
    index_fields: tuple[str, ...] | None
    rows: int
    generation: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record.

    Args:
        id: its key, as text.
        attributes: with their own types (JSON's); a fresh dict.
    """

    id: str = field(repr=False)
    attributes: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StorePage:
    """One page of records.

    Args:
        payloads: each record as it is in a response.
        next_cursor: for the page after this one; `None` on the last page.
        total: how many records match in all; `None` when it was not asked for.
    """

    payloads: tuple[bytes, ...] = field(repr=False)
    next_cursor: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class CollectionChanges:
    """What changed in a collection after some generation.

    Args:
        generation: up to which this is complete.
        written: the keys of the records that were written, each once.
        deleted: the keys of the records that are gone.
    """

    generation: int
    written: tuple[str, ...] = field(repr=False)
    deleted: tuple[str, ...] = field(repr=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """All of them."""
        return self.written + self.deleted


@dataclass(frozen=True, slots=True)
class RefreshSpec:
    """What changes in one collection.

    A row replaces the record with its key as a whole. Columns that the collection does not have are left out; to add
    columns, build it anew.

    Args:
        name: the collection's.
        source: the changed rows, or all rows (then those that did not change are found out by comparing): whatever a
            `CollectionSpec` takes. `None` when there are only keys to delete.
        vanished: what becomes of records that the source does not have: `"keep"` them (the source has the changed rows
            only), or `"delete"` them (the source has all rows).
        tombstone: a column of the source that says that a row's record is to be deleted: true, `1`, `t`, `y` or `yes`.
            It is not stored.
        deleted: keys of records to delete; or a text file (UTF-8) with one key a line. They are deleted after the rows
            were taken in.
        encoding: of a CSV or JSONL file.
        delimiter: of a CSV file.
        format: of a file whose suffix does not say it.
        rejects: a file for the rows that are left out.
    """

    name: str
    source: Path | str | SqlQuery | Stream | Iterable[Mapping[str, Any]] | None = None
    vanished: Literal["keep", "delete"] = "keep"
    tombstone: str | None = None
    deleted: Path | str | Iterable[str] = ()
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"
    delimiter: str | None = None
    format: Format | None = None
    rejects: Path | str | None = None


@dataclass(frozen=True, slots=True)
class RefreshedCollection:
    """What a refresh did to one collection.

    Args:
        collection: as it is now.
        read: rows read.
        inserted: records that are new.
        updated: records that are different now.
        unchanged: rows that brought what was there already.
        deleted: records that are gone.
        asked_deletes: how many keys were given to delete.
        unmatched_deletes: how many of them no record had.
        duplicates: rows that another row with the same key replaced.
        rejected: rows left out, by reason.
        first_rejected: the number of the first row left out, or `None`.
        merged: whether the layers of changes had grown so much that the collection was written anew.
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
    """What `refresh_store` did.

    Args:
        path: the store's directory; `None` when it is in a database.
        generation: what is served now; the same as before when nothing changed.
        collections: one report a collection, in the order asked.
        seconds: how long it took.
    """

    path: Path | None
    generation: int
    collections: tuple[RefreshedCollection, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """What was built of one source.

    Args:
        collection: as it is now.
        read: rows read.
        stored: records stored.
        duplicates: rows that another row with the same key replaced.
        first_duplicate: the number of the first row whose key occurred before (1 is the first data row), or `None`.
        rejected: rows left out, by reason, e.g. `{"the key is missing or empty": 3}`.
        first_rejected: the number of the first row left out, or `None`.
        first_rejected_line: the line of the first one left out, where lines are known, or `None`.
        warnings: what the user should know, without values.
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
    """What `build_store` did.

    Args:
        path: the store's directory; `None` when it is in a database.
        generation: its new generation.
        collections: one report a collection, in the order asked.
        seconds: how long it took.
    """

    path: Path | None
    generation: int
    collections: tuple[CollectionReport, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build is: handed to the `progress` callable several times a second at most.

    Args:
        collection: the name of the collection at work.
        rows: read so far.
        total: how many there are in all, where that is known beforehand.
    """

    collection: str
    rows: int
    total: int | None = None
