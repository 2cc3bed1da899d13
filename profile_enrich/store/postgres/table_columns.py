"""Columns of the user's tables and views: how to read them, and how to compare text with them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring as quote
from typing import Any

from ...errors import ConfigurationError
from ..collection import ColumnType
from ..database_row import storable
from ..files.row_encoder import to_json
from .driver import Identifier

__all__ = ["TableColumn", "read_columns", "table_of"]

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_TEXTS = ("text", "character varying")
_INTEGERS = ("smallint", "integer", "bigint")
_NUMBERS = ("real", "double precision", "numeric")

_KINDS: dict[str, ColumnType] = {
    **dict.fromkeys(_INTEGERS, "integer"),
    **dict.fromkeys(_NUMBERS, "number"),
    "boolean": "boolean",
    "json": "json",
    "jsonb": "json",
}


def _fits_integer(text: str) -> bool:
    return bool(_INTEGER.fullmatch(text)) and -(1 << 63) <= int(text) < 1 << 63


def _fits_date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


# The valid texts of a type, and the cast of the parameter. Other texts match nothing and are not sent, because the
# server would reject them.
_COMPARED: dict[str, tuple[Callable[[str], bool], str]] = {
    **dict.fromkeys(_TEXTS, (storable, "text")),
    **dict.fromkeys(_INTEGERS, (_fits_integer, "bigint")),
    "uuid": (lambda text: bool(_UUID.fullmatch(text)), "uuid"),
    "boolean": (lambda text: text in ("true", "false"), "boolean"),
    "date": (_fits_date, "date"),
}
_KEYS = (*_TEXTS, *_INTEGERS, "uuid")


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of the user's table or view.

    Args:
        name: the name in the database.
        declared: its type in `information_schema`.
        exact: whether equality means identical text; false for a case-insensitive collation.
    """

    name: str
    declared: str
    exact: bool = True

    @property
    def kind(self) -> ColumnType:
        """The column type in the Census view. Dates, times and types that JSON lacks are text."""
        return _KINDS.get(self.declared, "text")

    @property
    def quoted(self) -> str:
        """The name quoted for SQL."""
        return Identifier(self.name).as_string(None)

    @property
    def selected(self) -> str:
        """The expression that reads it; as text if the Python type cannot hold every value."""
        if self.kind == "json":
            return f"CAST(CAST({self.quoted} AS jsonb) AS text)"
        return self.quoted if self.declared in (*_TEXTS, *_KINDS) else f"CAST({self.quoted} AS text)"

    @property
    def condition(self) -> str:
        """The SQL condition that it equals a parameter."""
        return f"{self.quoted} = CAST(%s AS {_COMPARED[self.declared][1]})"

    @property
    def after(self) -> str:
        """The SQL condition that it is greater than a parameter."""
        return f"{self.quoted} > CAST(%s AS {_COMPARED[self.declared][1]})"

    def takes(self, text: str) -> bool:
        """Return whether a value of the column can have this text."""
        return _COMPARED[self.declared][0](text)

    def json(self, value: Any) -> str:
        """Convert a value to JSON."""
        if value is None:
            return "null"
        return value if self.kind == "json" else to_json(value)

    def check_key(self, where: str) -> None:
        """Check that the column can be a key.

        Raises:
            ConfigurationError: its type or collation does not support comparison of identical text.
        """
        self._check(where, _KEYS, "key")

    def check_filterable(self, where: str) -> None:
        """Check that the column can be filtered by.

        Raises:
            ConfigurationError: see `check_key`.
        """
        self._check(where, tuple(_COMPARED), "filterable")

    def _check(self, where: str, allowed: tuple[str, ...], role: str) -> None:
        if self.declared not in allowed:
            raise ConfigurationError(
                f"{where}: the column {self.name!r} is of the type {self.declared}; {role} columns are of the types"
                f" {', '.join(allowed)}. Serve a view that casts it, with an index on that expression"
            )
        if not self.exact:
            raise ConfigurationError(
                f"{where}: the column {self.name!r} has a collation that treats different texts as equal; serve a view"
                ' that reads it with COLLATE "C", with an index on that expression'
            )


def record_json(columns: tuple[TableColumn, ...], values: tuple[Any, ...]) -> str:
    """Convert a row to the JSON object of a response."""
    pairs = zip(columns, values, strict=True)
    return "{" + ",".join([f"{quote(column.name)}:{column.json(value)}" for column, value in pairs]) + "}"


def table_of(name: str) -> tuple[str | None, str]:
    """Split `schema.table`; without a schema, the search path applies.

    Raises:
        ConfigurationError: the name has another form.
    """
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) not in (1, 2) or not all(parts):
        raise ConfigurationError(f"a table is named table or schema.table, as the database has it, not {name!r}")
    return (None, parts[0]) if len(parts) == 1 else (parts[0], parts[1])


def read_columns(connection: Any, schema: str | None, table: str) -> dict[str, TableColumn]:
    """The columns of a table or view that the role may read, in order; none if there is no such table."""
    rows = connection.execute(
        b"SELECT c.column_name, c.data_type, coalesce(bool_and(l.collisdeterministic), true)"
        b" FROM information_schema.columns c LEFT JOIN pg_collation l ON l.collname = c.collation_name"
        b" WHERE c.table_name = %s AND c.table_schema = coalesce(%s::text, ("
        b"   SELECT n.nspname FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace"
        b"   WHERE t.relname = %s AND pg_table_is_visible(t.oid) LIMIT 1))"
        b" GROUP BY c.column_name, c.data_type, c.ordinal_position ORDER BY c.ordinal_position",
        (table, schema, table),
    ).fetchall()
    return {name: TableColumn(name, declared, exact) for name, declared, exact in rows}
