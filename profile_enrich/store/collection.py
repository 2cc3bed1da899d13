"""A collection: its columns, records, pages and changes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = [
    "MAX_PAGE",
    "Collection",
    "CollectionChanges",
    "Column",
    "Dialect",
    "StorePage",
    "StoredRecord",
    "expected_types",
    "index_id_of",
]

MAX_PAGE = 1000
"""The largest page."""

Dialect = Literal["census", "amperity"]
"""The format of a payload. Census records keep their types; Amperity attributes are strings."""

ColumnType = Literal["text", "integer", "number", "boolean", "json"]
"""The type of a column in the Census view. Dates and times are text."""


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


def expected_types(collection: Collection, key: str) -> dict[str, ColumnType]:
    """Return the types that a collection's columns keep; the key is always text."""
    return {column.name: column.type for column in collection.columns if column.known and column.name != key}


def index_id_of(name: str) -> str:
    """Return the index id of a collection, derived from its name so that rebuilds keep it."""
    return f"idx-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"
