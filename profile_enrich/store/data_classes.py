"""Data classes of stores: specs, collections, columns, records, pages, reports."""

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
"""The largest number of fields of an Amperity index (the vendor's limit)."""

MAX_PAGE = 1000
"""The largest page."""

MAX_SHRINK = 0.2
"""The share of its records that a refresh may lose by default."""

Dialect = Literal["census", "amperity"]
"""The format of a payload. Census records keep their types; Amperity attributes are strings."""

ColumnType = Literal["text", "integer", "number", "boolean", "json"]
"""The type of a column in the Census view. Dates and times are text."""


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """One collection to build: a Census entity and an Amperity index at once.

    Args:
        name: the name of the entity and the index, 1 to 200 characters.
        source: the path of a CSV, TSV, JSONL or Parquet file (recognized by its suffix; CSV and JSONL may also be
            `.gz`), a `SqlQuery`, a `Stream`, or an iterable of dicts.
        key: the column that identifies a record. Keys are compared as text, exactly.
        filterable: the columns that pages can be filtered by, and that `StoreSource` can look up by.
        fields: the columns to keep, in this order; all of them by default. The key column is always kept.
        index_fields: the columns that the Amperity view shows, at most 30; all kept columns by default. A collection
            with more than 30 columns and no `index_fields` has no Amperity view.
        types: types of a CSV file's columns, `text`, `integer`, `number` or `boolean`, instead of the detected ones. By
            default, a column keeps its type from the previous build. A new column becomes a number only if every value
            is printed as the same text again, so `02134` and `1.10` stay text.
        encoding: the encoding of a CSV or JSONL file: `utf-8` (default), `cp1252`, `latin-1`,
            `utf-16` … A byte order mark of UTF-16 is recognized.
        delimiter: the delimiter of a CSV file, one character; detected from the header line by default.
        description: shown in the Amperity view.
        format: the format of a file with another suffix: `csv`, `tsv`, `jsonl` or `parquet`.
        rejects: an output file for rejected rows, as JSON lines with the reason. With it, a malformed line of a CSV or
            JSONL file is rejected, too; without it, a malformed line fails the build.
    """

    name: str
    source: Path | str | SqlQuery | Stream | Iterable[Mapping[str, Any]]
    key: str = "id"
    filterable: Sequence[str] = ()
    fields: Sequence[str] | None = None
    index_fields: Sequence[str] | None = None
    types: Mapping[str, ColumnType] = field(default_factory=dict[str, ColumnType])
    encoding: str = "utf-8"
    delimiter: str | None = None
    description: str = ""
    format: Format | None = None
    rejects: Path | str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a collection.

    Args:
        name: the name in the source.
        type: the type of its values.
        known: false if no record had a value yet, so that the type is still open.
    """

    name: str
    type: ColumnType
    known: bool = True


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of a store.

    Args:
        id: the Census entity id; rebuilds keep it.
        index_id: the Amperity index id, derived from the name; rebuilds keep it.
        name: the name of the entity and the index.
        description: free text.
        key: the name of the key column.
        columns: all columns, in order.
        filterable: the names of the columns that pages can be filtered by.
        index_fields: the names of the columns of the Amperity view; `None` if there is none (too many columns).
        rows: the number of records.
        generation: the generation of the store in which it last changed.
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
        attributes: the attributes with their JSON types, in a new dict.
    """

    id: str = field(repr=False)
    attributes: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StorePage:
    """One page of records.

    Args:
        payloads: each record in the form of a response.
        next_cursor: the cursor of the next page; `None` on the last page.
        total: the number of all matching records; `None` unless requested.
    """

    payloads: tuple[bytes, ...] = field(repr=False)
    next_cursor: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class CollectionChanges:
    """The changes of a collection after a generation.

    Args:
        generation: the generation up to which the changes are complete.
        written: the keys of the records that were written, each once.
        deleted: the keys of the deleted records.
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
    """The changes to apply to one collection.

    A row replaces the whole record with its key.

    Args:
        name: the name of the collection.
        source: the changed rows, or all rows (unchanged ones are detected by comparison), in any form that
            `CollectionSpec` accepts. `None` to delete keys only.
        vanished: what to do with records that the source lacks: `"keep"` (the source has only changed rows) or
            `"delete"` (the source has all rows).
        new_columns: what to do if the source has columns that the collection lacks: `"fail"`, or `"ignore"` them. A
            build adds columns.
        tombstone: a column that marks records to delete: true, `1`, `t`, `y` or `yes`. It is not stored.
        deleted: keys of records to delete, or a UTF-8 text file with one key per line. They are deleted after the rows
            are applied.
        encoding: the encoding of a CSV or JSONL file.
        delimiter: the delimiter of a CSV file.
        format: the format of a file with another suffix.
        rejects: an output file for rejected rows.
    """

    name: str
    source: Path | str | SqlQuery | Stream | Iterable[Mapping[str, Any]] | None = None
    vanished: Literal["keep", "delete"] = "keep"
    new_columns: Literal["fail", "ignore"] = "fail"
    tombstone: str | None = None
    deleted: Path | str | Iterable[str] = ()
    encoding: str = "utf-8"
    delimiter: str | None = None
    format: Format | None = None
    rejects: Path | str | None = None


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
