"""Reader of SQL queries with SQLAlchemy (extra `sql`); it streams, so memory does not grow with the result."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Mapping, Sequence
from json.encoder import encode_basestring as quote
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ..._utils.optional_import import import_extra
from ..._utils.strict_json import StrictJsonError
from ...errors import ConfigurationError, StoreError
from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..files.row_encoder import RowRejected, to_json
from ..input_types import SqlQuery
from .base import check_columns
from .objects import ObjectReader, decode_exactly
from .rejects import Rejects

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Engine

__all__ = ["SqlReader"]

_BATCH = 2000

_READS = re.compile(
    r"(\s|--[^\n]*\n|/\*.*?\*/|\()*(SELECT|WITH|VALUES|TABLE|FROM|SHOW|EXEC|EXECUTE|CALL)\b", re.IGNORECASE | re.DOTALL
)
"""The start of a statement that returns rows. Other statements run only in a read-only transaction."""


class SqlReader(ObjectReader):
    """Reader of the rows of a query.

    Args:
        spec: which fields to keep.
        source: the database and the query.

    Raises:
        ConfigurationError: the URL is invalid, or its driver is not installed.
        MissingExtraError: SQLAlchemy is not installed.
        StoreError: the database does not respond or rejects the query, or the result lacks a column.
    """

    def __init__(self, spec: CollectionSpec, source: SqlQuery, expected: Mapping[str, ColumnType]) -> None:
        import_extra("sqlalchemy", "reading from a database", "sql")
        from sqlalchemy.exc import SQLAlchemyError

        if spec.types:
            raise ConfigurationError("`types` is for CSV files; a query brings its own: cast in the query")
        self._errors: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)
        self._engine = _engine(source)
        if self._engine.dialect.name not in ("postgresql", "sqlite") and not _READS.match(source.query):
            raise ConfigurationError("the query gives no rows; it must be a SELECT statement")
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._engine.dispose)
        where = f"the query of {spec.name!r}"
        try:
            self._result, self._names = self._run(source)
            check_columns(spec, self._names, where)
            rejects = Rejects(spec.rejects, where)
        except BaseException:
            self._end()
            raise
        super().__init__(spec, self._objects_of_result(), where, rejects, expected=expected)

    def columns(self) -> dict[str, ColumnType]:
        """The columns of the result, even without rows."""
        return super().columns() or dict.fromkeys(self._kept or self._names, "text")

    def texts(self, values: Sequence[object]) -> list[str]:
        """Return the values of a row as JSON. Types that JSON lacks (an address, a range) become text."""
        self._check_types()
        return [_text(value) for value in values]

    def close(self) -> None:
        """End the query and close the connection."""
        super().close()
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(*self._errors):  # the connection is already broken
            self._closing.close()

    def _run(self, source: SqlQuery) -> tuple[CursorResult[Any], list[str]]:
        problem, names = "", list[str]()
        result: CursorResult[Any] | None = None
        try:
            # `no_parameters` sends the query unchanged, including `%` and `:`.
            options: dict[str, Any] = {"stream_results": True, "yield_per": _BATCH, "no_parameters": True}
            if self._engine.dialect.name == "postgresql":
                options["postgresql_readonly"] = True
            connection = self._closing.enter_context(self._engine.connect()).execution_options(**options)
            if self._engine.dialect.driver == "psycopg":
                _read_values_that_python_lacks(connection.connection.driver_connection)
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only = 1")
            result = connection.exec_driver_sql(source.query)
            self._closing.callback(result.close)
            names = list(result.keys()) if result.returns_rows else []
        except self._errors as error:
            problem = _explain(error)
        if problem or result is None:
            raise StoreError(problem)
        if not names:
            raise ConfigurationError("the query gives no rows; it must be a SELECT statement")
        if len(set(names)) < len(names):
            twice = next(name for number, name in enumerate(names) if name in names[:number])
            raise StoreError(f"the query returns two columns named {twice!r}; rename one with AS")
        return result, names

    def _objects_of_result(self) -> Generator[Mapping[str, Any]]:
        problem, number = "", 0
        names = self._names
        try:
            for batch in self._result.partitions(_BATCH):
                for row in batch:
                    yield dict(zip(names, row, strict=True))
                number += len(batch)
        except self._errors as error:
            problem = f"the database failed after row {number:,} ({type(error).__name__})"
        except (ValueError, ArithmeticError, TypeError) as error:  # of the driver, at a value that Python does not have
            problem = (
                f"the database's driver cannot read a value after row {number:,} ({type(error).__name__}); cast such"
                " columns, e.g. dates, to text in the query"
            )
        if problem:
            raise StoreError(problem)


def _read_values_that_python_lacks(connection: Any) -> None:
    """Have psycopg give times that Python lacks as text (`infinity`, `0044-03-15 BC`), and JSON as `_json` does."""
    import psycopg
    from psycopg.adapt import Loader
    from psycopg.types.json import set_json_loads

    set_json_loads(_json, connection)
    for name in ("date", "time", "timetz", "timestamp", "timestamptz", "interval"):
        given = connection.adapters.get_loader(connection.adapters.types[name].oid, psycopg.pq.Format.TEXT)

        class AsText(Loader):
            kind = given

            def __init__(self, oid: int, context: Any = None) -> None:
                super().__init__(oid, context)
                self._loader = self.kind(oid, context)

            def load(self, data: Any) -> Any:
                try:
                    return self._loader.load(data)
                except psycopg.DataError:
                    return bytes(data).decode()

        connection.adapters.register_loader(name, AsText)


class _UnfitJson:
    """A value that is JSON for the database alone; its row is rejected, not the whole input."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _json(text: str | bytes) -> object:
    try:
        return decode_exactly(text if isinstance(text, str) else text.decode())
    except StrictJsonError as error:
        return _UnfitJson(f"a JSON value cannot be kept: {error.reason}")


def _text(value: object) -> str:
    if isinstance(value, _UnfitJson):
        raise RowRejected(value.reason)
    try:
        return to_json(value)
    except RowRejected:
        return quote(str(value))


def _engine(source: SqlQuery) -> Engine:
    """Make the engine for a URL. Its errors do not quote the URL, which may hold a password."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool

    url, problem = source.resolved(), ""
    try:
        engine = create_engine(url, poolclass=NullPool)
        missing = engine.dialect.name == "sqlite" and _is_missing(engine.url.database)
        if not missing:
            return engine
        problem = "the SQLite database does not exist, and is not created; check the path in the URL"
    except NoSuchModuleError:
        problem = "SQLAlchemy does not know the kind of database that its URL begins with; e.g. postgresql+psycopg://"
    except ImportError as error:
        problem = f"the database's driver {error.name or ''} is not installed: pip install it"
    except (ArgumentError, ValueError):
        problem = (
            "the database's URL cannot be read; it looks like postgresql+psycopg://user:password@host:5432/database,"
            " with special characters of the password percent-encoded"
        )
    raise ConfigurationError(problem)


def _is_missing(database: str | None) -> bool:
    """Return whether a SQLite file is missing; connecting would create it."""
    if not database or database == ":memory:" or "mode=memory" in database:
        return False
    return not Path(unquote(database.removeprefix("file:").partition("?")[0])).exists()


def _explain(error: Exception) -> str:
    """Describe an error before the first row. A driver's message is used only if it cannot quote values."""
    original = getattr(error, "orig", None)
    state = str(getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or "")
    said = str(original or "").splitlines()[:1]
    if state in ("42P01", "42703") or (said and said[0].startswith(("no such table: ", "no such column: "))):
        return f"the database refused the query: {said[0]}"
    if state == "42601" or (said and said[0].endswith("syntax error")):
        return "the database refused the query: a syntax error in it, or it is no SELECT statement"
    if state == "42501":
        return "the database refused the query: its user may not read that table"
    if state == "25006" or state.startswith("28"):
        return (
            "the query tried to change something; it must only read"
            if state == "25006"
            else "the database refused the user or the password of the URL"
        )
    state = state or _sqlite_state(original)
    if state == "SQLITE_READONLY":
        return "the query tried to change something; it must only read"
    if type(error).__name__ == "OperationalError" and not state:
        return (
            "the database cannot be reached; check the host, the port, the name, the user and the password of the URL"
        )
    return f"the database refused the query ({type(error).__name__}{', ' + state if state else ''})"


def _sqlite_state(original: object) -> str:
    """Return SQLite's name of the error, unless the file does not exist."""
    name = str(getattr(original, "sqlite_errorname", ""))
    return "" if name == "SQLITE_CANTOPEN" else name
