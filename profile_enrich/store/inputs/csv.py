"""Reads tables with DuckDB (extra `server`), whose columns and types are known beforehand: CSV here, `parquet` too."""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError, MissingExtraError, StoreError
from ..files.row_encoder import MAX_KEY_BYTES, MAX_RECORD_BYTES, to_json
from ..model import CollectionSpec, ColumnType
from .input_types import Format
from .readers import MAX_COLUMNS, Row, check_columns, kept_fields, kind_of, open_bytes, wrong_encoding
from .rejects import Rejects

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["CsvReader", "TableReader", "clean_facts", "is_clean", "literal"]

_BATCH = 2048

# A column becomes a number only when each of its values is written exactly as JSON writes it: no leading zero or plus,
# at most 15 digits (longer ones are identifiers, and JavaScript would round them). The literal itself is then stored.
_INTEGER = r"-?(0|[1-9][0-9]{0,14})"
_NUMBER = _INTEGER + r"(\.[0-9]{1,15})?([eE][-+]?[0-9]{1,2})?"
_PATTERNS: dict[ColumnType, str] = {
    "integer": _INTEGER,
    "number": _NUMBER,
    "boolean": r"[Tt]rue|[Ff]alse|TRUE|FALSE",
}


_SAMPLE = 4096  # rows after which most columns are known to be text


class TableReader:
    """What CSV and Parquet have in common: a query, and columns known beforehand.

    Attributes:
        clean: whether no row will be refused, so that nobody need look at each.
    """

    def __init__(self, spec: CollectionSpec, path: Path, where: str) -> None:
        try:
            import duckdb
        except ImportError:
            duckdb = None  # type: ignore[assignment]  # said below, outside the handler
        if duckdb is None:
            raise MissingExtraError("reading CSV and Parquet files", "server")
        self._errors: type[Exception] = duckdb.Error
        self._path = path
        # `glob.escape`: DuckDB takes paths for patterns.
        self._pattern = glob.escape(str(path))
        self.where = where
        self.total: int | None = None
        self.rejects = Rejects(spec.rejects, where)
        self._types: dict[str, ColumnType] = {}
        self._scan = ""
        self._query = ""
        self.clean = False
        self._parameters: dict[str, object] = {}
        self._encoders: list[Callable[[Any], str]] = []
        self._connection: DuckDBPyConnection = duckdb.connect(
            ":memory:",
            config={"autoinstall_known_extensions": False, "autoload_known_extensions": False, "threads": 2},
        )
        self._connection.execute("SET enable_progress_bar = false")  # it would draw over the caller's output
        self._aside = self._connection  # what is kept is asked for beside the rows

    def columns(self) -> dict[str, ColumnType]:
        """The columns and their types."""
        return self._types

    def texts(self, values: Sequence[object]) -> list[str]:
        """The values of a row as JSON."""
        return [encode(value) for encode, value in zip(self._encoders, values, strict=True)]

    def reject(self, number: int, names: Sequence[str], values: Sequence[object], reason: str) -> None:
        """Leaves out the row that `rows` gave last."""
        self.rejects.add(reason, row=number, data=dict(zip(names, values, strict=True)))

    def close(self) -> None:
        """Closes DuckDB."""
        self._aside.close()
        self._connection.close()
        self.rejects.close()

    def rows(self) -> Iterator[Row]:
        """Names and values of each row."""
        names = tuple(self._types)
        batch = self._fetch(self._query)
        count = 0
        while batch:
            for row in batch:
                yield names, row
            count += len(batch)
            batch = self._fetch(None)
        self._check_count(count)

    @property
    def places(self) -> Mapping[str, str]:
        """SQL for each kept column as text, where all of them can be had so; else nothing."""
        return {}

    def batches(self, expressions: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        """The values of SQL expressions over the columns, in the order of the file."""
        batch = self._fetch(f"SELECT {', '.join(expressions)} FROM {self._scan}")  # noqa: S608  # quoted by its maker
        count = 0
        while batch:
            yield batch
            count += len(batch)
            batch = self._fetch(None)
        self._check_count(count)

    def keep(self, expressions: Sequence[str], spill: Path) -> None:
        """Keeps the values of SQL expressions in a table `kept`: columns `f0`, `f1`, …; `rowid` counts from 0.

        Another thread may go through `batches` meanwhile.

        Args:
            expressions: over the columns.
            spill: a directory for what does not fit into memory; made when it is needed, and removed by `close`.
        """
        self._aside = self._connection.cursor()
        self._aside.execute("SET temp_directory = $path", {"path": str(spill)})
        columns = ", ".join([f"{expression} AS f{number}" for number, expression in enumerate(expressions)])
        keep = f"CREATE TEMP TABLE kept AS SELECT {columns} FROM {self._scan}"  # noqa: S608  # as above
        self._check_count(self._fetch(keep, self._aside)[0][0])

    def ask(self, query: str, parameters: Mapping[str, object] | None = None) -> Iterator[list[tuple[Any, ...]]]:
        """The answer to a statement about what was kept. It begins at once, whether the answer is asked for or not."""
        return self._answer(self._try(query, parameters or {}))

    def _answer(self, batch: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
        while batch:
            yield batch
            batch = self._try(None, {})

    def _try(self, query: str | None, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        problem = ""
        try:
            if query is not None:
                self._aside.execute(query, parameters)
            return self._aside.fetchmany(_BATCH)
        except self._errors as error:
            problem = type(error).__name__
        raise StoreError(f"{self.where}: its values cannot be sorted ({problem}); is there enough memory and disk?")

    def _check_count(self, count: int) -> None:
        if count != self.total:
            raise StoreError(f"{self.where} changed while it was read; try again when it is complete")

    def _fetch(self, query: str | None, connection: DuckDBPyConnection | None = None) -> list[tuple[Any, ...]]:
        connection = connection or self._connection
        problem = ""
        try:
            if query is not None:
                connection.execute(query, self._parameters)
            return connection.fetchmany(_BATCH)
        except self._errors as error:
            problem = self._explain(str(error))
        raise StoreError(problem)

    def _explain(self, message: str) -> str:
        """What went wrong, without the line that DuckDB quotes."""
        raise NotImplementedError


def _wrong_line(path: Path, encoding: str, gzipped: bool) -> int:
    """The first line that is not in this encoding: text is decoded ahead in blocks, so it need not be the header."""
    if encoding == "utf-8":
        with open_bytes(path, gzipped=gzipped) as lines:
            for number, line in enumerate(lines, 1):
                if "\ufffd" in line.decode(errors="replace") and b"\xef\xbf\xbd" not in line:
                    return number
    return 1


def literal(value: str | None) -> str:
    """A value that is written as JSON writes it, as JSON."""
    return "null" if value is None else value


def _lower(value: str | None) -> str:
    return "null" if value is None else value.lower()


_LITERALS: dict[ColumnType, Callable[[Any], str]] = {
    "integer": literal,
    "number": literal,
    "boolean": _lower,
    "text": to_json,
}


_BROKEN = {
    "TOO MANY COLUMNS": "more fields than the header line names; one that holds the delimiter must be quoted",
    "MISSING COLUMNS": "fewer fields than the header line names",
    "UNQUOTED VALUE": "a quoted field is not closed properly",
    "LINE SIZE OVER MAXIMUM": "longer than 4 MB",
    "INVALID ENCODING": "not valid {}",
}


def _all_are(place: str, kind: ColumnType) -> str:
    return f"bool_and(regexp_full_match({place}, '{_PATTERNS[kind]}'))"


def clean_facts(key: str, places: Sequence[str]) -> list[str]:
    """SQL for what `is_clean` wants to know of a table: given its key and its columns as text."""
    sizes = " + ".join([f"coalesce(strlen({place}), 0)" for place in places])
    return [
        f"count(*) FILTER (WHERE coalesce({key}, '') = '' OR strlen({key}) > {MAX_KEY_BYTES})",
        f"coalesce(max({sizes}), 0)",
    ]


def is_clean(names: Sequence[str], odd: int, longest: int) -> bool:
    """Whether every row can be stored: no key is odd, and the longest row is short, also as JSON."""
    # At worst JSON makes six bytes of one; each column has quotes, a colon, a comma, and may be null.
    return not odd and 6 * (longest + sum(len(name.encode()) + 8 for name in names)) < MAX_RECORD_BYTES


class CsvReader(TableReader):
    """A CSV or TSV file with a header line.

    An empty field is null, a quoted empty field (`""`) is the empty text.
    """

    def __init__(self, spec: CollectionSpec, path: Path, kind: Format, where: str) -> None:
        if unknown := set(spec.types.values()) - set(_LITERALS):
            raise ConfigurationError(
                f"a CSV column cannot be of the types {sorted(unknown)}; there are text, integer, number and boolean"
            )
        super().__init__(spec, path, where)
        self._encoding = spec.encoding
        self._gzipped = kind_of(path, kind)[1]
        delimiter, names = self._header(spec, kind)
        self._scan = (
            "read_csv($path, auto_detect=false, header=true, columns=$columns, delim=$delimiter, quote='\"',"
            " escape='\"', nullstr='', allow_quoted_nulls=false, strict_mode=true, null_padding=false,"
            " encoding=$encoding, max_line_size=4194304"
        )
        # Not `ignore_errors` alone: it stops at the first broken line without a word.
        self._scan += ", store_rejects=true, rejects_limit=0)" if self.rejects.kept else ")"
        self._parameters = {
            "path": self._pattern,
            # By position: DuckDB takes `ID` and `id` for the same name.
            "columns": {f"c{number}": "VARCHAR" for number in range(len(names))},
            "delimiter": delimiter,
            "encoding": spec.encoding,
        }
        self._place = {name: f"c{number}" for number, name in enumerate(names)}
        kept = names if spec.fields is None else kept_fields(spec)
        try:
            check_columns(spec, names, where)
            self._types = self._find_types(spec, kept)
            if self.rejects.kept:
                self._take_broken_lines()
        except StoreError:
            self.close()
            raise
        self._encoders = [_LITERALS[self._types[name]] for name in kept]
        self._query = f"SELECT {', '.join([self._place[name] for name in kept])} FROM {self._scan}"  # noqa: S608  # c0, c1…

    @property
    def places(self) -> Mapping[str, str]:
        """What each kept column is called in SQL."""
        return {name: self._place[name] for name in self._types}

    def _header(self, spec: CollectionSpec, kind: Format) -> tuple[str, list[str]]:
        encoding = "utf-8-sig" if spec.encoding == "utf-8" else spec.encoding
        # Text is decoded ahead in blocks: where broken lines are left out, only the header line itself must be right.
        errors = "surrogateescape" if self.rejects.kept and spec.encoding == "utf-8" else "strict"
        problem = ""
        first: list[str] = []
        delimiter = spec.delimiter or ("\t" if kind == "tsv" else "")
        try:
            with (
                open_bytes(self._path, gzipped=self._gzipped) as raw,
                io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline="") as text,
            ):
                if not delimiter:
                    line = text.readline()
                    delimiter = max(",;\t|", key=line.count)
                    text.seek(0)
                first = next(csv.reader(text, delimiter=delimiter, strict=True), first)
            if any("\udc80" <= character <= "\udcff" for name in first for character in name):
                problem = wrong_encoding(self.where, 1, spec.encoding)
        except UnicodeDecodeError:
            problem = wrong_encoding(self.where, _wrong_line(self._path, spec.encoding, self._gzipped), spec.encoding)
        except csv.Error:
            problem = f"{self.where}, line 1: the header line is not CSV"
        except (OSError, EOFError):
            problem = f"{self.where} cannot be unpacked; is it whole?"
        if not problem:
            if not any(first):
                problem = (
                    f"{self.where} is empty or begins with an empty line; a header line with the column names is needed"
                )
            elif "" in first:
                problem = f"{self.where}, line 1: column {first.index('') + 1} has no name"
            elif len(set(first)) < len(first):
                twice = next(name for number, name in enumerate(first) if name in first[:number])
                problem = f"{self.where}, line 1: two columns are named {twice!r}; rename one"
            elif len(first) > MAX_COLUMNS:
                problem = f"{self.where} has more than {MAX_COLUMNS:,} columns"
        if problem:
            self.close()
            raise StoreError(problem)
        return delimiter, first

    def _find_types(self, spec: CollectionSpec, kept: Sequence[str]) -> dict[str, ColumnType]:
        free = [name for name in kept if name != spec.key]  # a key is text, so that `007` stays `007`
        possible = self._possible(free)
        facts = ["count(*)", *clean_facts(self._place[spec.key], [self._place[name] for name in kept])]
        for name in free:
            facts.append(f"count({self._place[name]})")
            facts += [f"coalesce({_all_are(self._place[name], kind)}, false)" for kind in possible[name]]
        self.total, odd, longest, *found = self._fetch(f"SELECT {', '.join(facts)} FROM {self._scan}")[0]  # noqa: S608  # c0, c1… and constants
        self.clean = not self.rejects.kept and is_clean(kept, odd, longest)
        answers = iter(found)
        types: dict[str, ColumnType] = dict.fromkeys(kept, "text")
        for name in free:
            some = next(answers)
            fitting: list[ColumnType] = [kind for kind in possible[name] if next(answers)]
            wanted = spec.types.get(name)
            if wanted is None:
                types[name] = fitting[0] if fitting else "text"
            elif wanted == "text" or wanted in fitting or not some:
                types[name] = wanted
            else:
                raise StoreError(
                    f"{self.where}: column {name!r} cannot be read as {wanted}: some of its values are not written as"
                    " JSON writes it (no leading zeros, at most 15 digits, a point before decimals, true or false)"
                )
        return types

    def _possible(self, names: Sequence[str]) -> dict[str, list[ColumnType]]:
        """The types that the first rows leave for each column: all rows are then looked through for these alone."""
        possible: dict[str, list[ColumnType]] = {name: list(_PATTERNS) for name in names}
        # Where broken lines are left out, each scan notes them: there are to be no more scans than needed.
        if names and not self.rejects.kept:
            facts = [
                f"coalesce({_all_are(self._place[name], kind)}, true)" for name in names for kind in possible[name]
            ]
            # What is wrong with the file is said by the scan of all of it.
            with contextlib.suppress(StoreError):
                found = self._fetch(f"SELECT {', '.join(facts)} FROM (FROM {self._scan} LIMIT {_SAMPLE})")[0]  # noqa: S608  # as above
                answers = iter(found)
                possible = {name: [kind for kind in kinds if next(answers)] for name, kinds in possible.items()}
        return possible

    def _take_broken_lines(self) -> None:
        """Leaves out the lines that DuckDB passed over in the first scan."""
        found = self._connection.execute(
            "SELECT line_byte_position, min(line), arg_min(error_type::VARCHAR, column_idx), min(csv_line)"
            " FROM reject_errors GROUP BY line_byte_position ORDER BY 1"
        ).fetchall()
        places = self._lines_at([row[0] for row in found])
        for (_, line, kind, raw), counted in zip(found, places, strict=True):
            reason = _BROKEN.get(kind, "not CSV").format(self._encoding.upper())
            self.rejects.add(reason, line=counted or line, raw=raw)

    def _lines_at(self, positions: Sequence[int]) -> list[int]:
        """The lines in which these bytes of the file are; 0 where that cannot be told.

        DuckDB counts rows for lines, and a quoted field can have several lines.
        """
        if self._encoding != "utf-8" or not positions:
            return [0] * len(positions)
        lines: list[int] = []
        with open_bytes(self._path, gzipped=self._gzipped) as file:
            end = 0
            for number, line in enumerate(file, 1):
                end += len(line)  # DuckDB counts bytes from 1
                while len(lines) < len(positions) and positions[len(lines)] <= end:
                    lines.append(number)
        return lines + [0] * (len(positions) - len(lines))

    def _explain(self, message: str) -> str:
        at = re.search(r"on Line: (\d+)", message)
        where = f"{self.where}, line {int(at[1]):,}" if at else self.where
        if "Invalid unicode" in message or "encoded" in message:
            return wrong_encoding(self.where, int(at[1]) if at else 1, self._encoding)
        if columns := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
            return (
                f"{where}: {columns[2]} fields, but the header line names {columns[1]};"
                " a field that holds the delimiter must be quoted"
            )
        if "unterminated quote" in message:
            return f'{where}: a quoted field is not closed properly; a quote inside quotes is written twice ("")'
        if "line size" in message.lower():
            return f"{where}: longer than 4 MB"
        if self._gzipped:
            return f"{where}: cannot be read to its end; is it whole, and CSV?"
        return f"{where}: not CSV; fields are separated by one delimiter and quoted with double quotes"
