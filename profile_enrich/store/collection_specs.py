"""Specifications of builds and refreshes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .collection import ColumnType
from .input_types import Format, SqlQuery, Stream

__all__ = ["MAX_INDEX_FIELDS", "MAX_SHRINK", "CollectionSpec", "RefreshSpec"]

MAX_INDEX_FIELDS = 30
"""The largest number of fields of an Amperity index (the vendor's limit)."""

MAX_SHRINK = 0.2
"""The share of its records that a refresh may lose by default."""


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
