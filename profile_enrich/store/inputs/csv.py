"""Read CSV files with DuckDB (extra `server`)."""

from __future__ import annotations

import collections
import contextlib
import csv
import glob
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..._utils.text_encoding import CR_ALONE, ends_in_cr
from ...errors import ConfigurationError, StoreError
from ..collection import ColumnType
from ..collection_specs import CollectionSpec
from ..input_types import Format
from .base import MAX_COLUMNS, UNREADABLE, check_columns, codec_of, kept_fields, kind_of, open_bytes, wrong_encoding
from .csv_rows import FEWER, MORE, NOT_UTF8, OTHER_WIDTH, TOO_LONG, UNCLOSED, copy_rows, is_plain
from .duckdb_table import (
    _DECLARED,
    _INFERRED,
    _LITERALS,
    _SAMPLE,
    TableReader,
    all_are,
    rows_are_valid,
    validity_facts,
)
from .private_copy import PrivateCopy, as_utf8, blocks

__all__ = ["CsvReader"]


def _wrong_line(path: Path, gzipped: bool) -> int:
    """The first line that is not valid: text is decoded ahead in blocks, so it need not be the header."""
    with open_bytes(path, gzipped=gzipped) as lines:
        for number, line in enumerate(lines, 1):
            if "\ufffd" in line.decode(errors="replace") and b"\xef\xbf\xbd" not in line:
                return number
    return 1


def _check_checksum(path: Path, where: str) -> None:
    """Decompress a file once: DuckDB checks neither the checksum nor the length at its end (RFC 1952, 2.3.1)."""
    damaged = False
    with open_bytes(path, gzipped=True) as file:
        try:
            collections.deque(blocks(file), maxlen=0)
        except UNREADABLE:
            damaged = True
    if damaged:
        raise StoreError(f"{where} cannot be unpacked; is it whole?")


class CsvReader(TableReader):
    """A CSV or TSV file with a header line.

    An empty field is null; a quoted empty field (`""`) is an empty string. A file in another encoding is first
    converted to UTF-8 in a private copy, because the engine supports few encodings.
    """

    def __init__(
        self, spec: CollectionSpec, path: Path, kind: Format, where: str, expected: Mapping[str, ColumnType]
    ) -> None:
        if unknown := set(spec.types.values()) - set(_LITERALS):
            raise ConfigurationError(
                f"a CSV column cannot be of the types {sorted(unknown)}; there are text, integer, number and boolean"
            )
        self._gzipped = kind_of(path, kind)[1]
        self._codec = codec_of(path, spec.encoding, where, gzipped=self._gzipped)
        if self._gzipped:
            _check_checksum(path, where)
        self._copy: PrivateCopy | None = None
        if self._codec != "utf-8":
            with open_bytes(path, gzipped=self._gzipped) as file:
                self._copy = PrivateCopy(as_utf8(blocks(file), self._codec), ".csv", where)
            path, self._gzipped = self._copy.path, False
        super().__init__(spec, path, where)
        self._misfitting: set[str] = set()
        self._header_lines = 1
        try:
            self._prepare(spec, kind, expected)
        except BaseException:
            self.close()
            raise

    def _prepare(self, spec: CollectionSpec, kind: Format, expected: Mapping[str, ColumnType]) -> None:
        """Read the header, find the types and reject the malformed lines."""
        delimiter, names = self._header(spec, kind)
        if self.rejects.kept or self._header_lines > 1 or not self._is_plain(delimiter):
            self._copy_rows(delimiter, len(names))
        self._scan = (
            "read_csv($path, auto_detect=false, header=true, columns=$columns, delim=$delimiter, quote='\"',"
            " escape='\"', nullstr='', allow_quoted_nulls=false, strict_mode=true, null_padding=false,"
            " encoding='utf-8', max_line_size=4194304, comment='', skip=0, compression=$compression,"
            " hive_partitioning=false, union_by_name=false, normalize_names=false, filename=false)"
        )
        self._parameters = {
            "path": self._pattern,
            # By position, because DuckDB treats `ID` and `id` as the same name.
            "columns": {f"c{number}": "VARCHAR" for number in range(len(names))},
            "delimiter": delimiter,
            "compression": "gzip" if self._gzipped else "none",
        }
        self._place = {name: f"c{number}" for number, name in enumerate(names)}
        kept = names if spec.fields is None else kept_fields(spec)
        self.left_out = frozenset(names).difference(kept)
        check_columns(spec, names, self.where)
        self._types = self._find_types(spec, kept, expected)
        self._declared = {
            place: (name, self._types[name], re.compile(_DECLARED[self._types[name]]))
            for place, name in enumerate(kept)
            if name in self._misfitting
        }
        self._encoders = [_LITERALS[self._types[name]] for name in kept]
        self._query = f"SELECT {', '.join([self._place[name] for name in kept])} FROM {self._scan}"  # noqa: S608  # c0, c1…

    def _is_plain(self, delimiter: str) -> bool:
        with open_bytes(self._path, gzipped=self._gzipped) as file:
            return is_plain(file, delimiter)

    @property
    def places(self) -> Mapping[str, str]:
        """The SQL name of each kept column."""
        return {} if self._declared else {name: self._place[name] for name in self._types}

    def close(self) -> None:
        """Close DuckDB, and remove the copy."""
        super().close()
        if self._copy is not None:
            self._copy.close()

    def _copy_rows(self, delimiter: str, width: int) -> None:
        """Read a copy of the rows that Python's strict reader takes, below a header of one line; reject the others."""
        before = self._copy

        def refuse(line: int, reason: str, raw: str, fields: int) -> None:
            if reason == NOT_UTF8:
                reason = f"not valid {self._codec.upper()}"
            if self.rejects.kept:
                self.rejects.add(reason, line=line, raw=raw)
            elif reason.startswith("not valid"):
                raise StoreError(wrong_encoding(self.where, line, self._codec))
            else:
                said = OTHER_WIDTH.format(fields, width) if reason in (MORE, FEWER) else reason
                raise StoreError(f"{self.where}, line {line:,}: {said}")

        with open_bytes(self._path, gzipped=self._gzipped) as file:
            header = delimiter.join(f"c{number}" for number in range(width)).encode() + b"\n"
            lines = itertools.islice(file, self._header_lines, None)
            rows = copy_rows(lines, self._header_lines + 1, delimiter, width, self.where, refuse)
            self._copy = PrivateCopy(itertools.chain([header], rows), ".csv", self.where)
        if before is not None:
            before.close()
        self._path, self._gzipped = self._copy.path, False
        self._pattern = glob.escape(str(self._path))

    def _header(self, spec: CollectionSpec, kind: Format) -> tuple[str, list[str]]:
        # Text is decoded in blocks; if malformed lines are rejected, only the header line must be valid.
        errors = "surrogateescape" if self.rejects.kept else "strict"
        problem = ""
        line, first = "", list[str]()
        delimiter = spec.delimiter or ("\t" if kind == "tsv" else "")
        try:
            with (
                open_bytes(self._path, gzipped=self._gzipped) as raw,
                io.TextIOWrapper(raw, encoding="utf-8-sig", errors=errors, newline="\n") as text,
            ):
                line = text.readline()
                delimiter = delimiter or max(",;\t|", key=line.count)
                text.seek(0)
                rows = csv.reader(text, delimiter=delimiter, strict=True)
                first = next(rows, first)
                self._header_lines = rows.line_num
            if any("\udc80" <= character <= "\udcff" for name in first for character in name):
                problem = wrong_encoding(self.where, 1, self._codec)
        except UnicodeDecodeError:
            problem = wrong_encoding(self.where, _wrong_line(self._path, self._gzipped), self._codec)
        except csv.Error:
            problem = f"{self.where}, line 1: the header line is not CSV"
            if ends_in_cr(line):
                problem = f"{self.where}: {CR_ALONE}"
        except UNREADABLE:
            problem = f"{self.where} cannot be unpacked; is it whole?"
        if not problem:
            if not any(first):
                problem = (
                    f"{self.where} is empty or begins with an empty line; a header line with the column names is needed"
                )
            elif first[0].lower().startswith("sep=") and len(first) <= 2:
                problem = f"{self.where}, line 1: a line for spreadsheets, which is not CSV; remove it"
            elif len(first) == 1 and first[0] != spec.key and " " in first[0].strip():
                hint = "if its fields are separated by spaces, pass delimiter=' '"
                problem = f"{self.where} has one column, {first[0]!r}; {hint}"
            elif "" in first:
                problem = f"{self.where}, line 1: column {first.index('') + 1} has no name"
            elif len(set(first)) < len(first):
                twice = next(name for number, name in enumerate(first) if name in first[:number])
                problem = f"{self.where}, line 1: two columns are named {twice!r}; rename one"
            elif len(first) > MAX_COLUMNS:
                problem = f"{self.where} has more than {MAX_COLUMNS:,} columns"
        if problem:
            raise StoreError(problem)
        return delimiter, first

    def _find_types(
        self, spec: CollectionSpec, kept: Sequence[str], expected: Mapping[str, ColumnType]
    ) -> dict[str, ColumnType]:
        said: dict[str, ColumnType] = {
            **{name: kind for name, kind in expected.items() if kind in _LITERALS},
            **spec.types,
        }
        free = [name for name in kept if name != spec.key]  # keys are text, so that `007` stays `007`
        possible = self._possible([name for name in free if name not in said])
        patterns = {
            name: [_DECLARED[kind]] if (kind := said.get(name)) in _DECLARED and kind else []
            for name in free
            if name in said
        } | {name: [_INFERRED[kind] for kind in kinds] for name, kinds in possible.items()}
        facts = ["count(*)", *validity_facts(self._place[spec.key], [self._place[name] for name in kept])]
        for name in free:
            facts.append(f"count({self._place[name]})")
            facts += [f"coalesce({all_are(self._place[name], pattern)}, false)" for pattern in patterns[name]]
        self.total, odd, longest, *found = self._fetch(f"SELECT {', '.join(facts)} FROM {self._scan}")[0]  # noqa: S608  # c0, c1… and constants
        self.all_valid = not self.rejects.kept and rows_are_valid(kept, odd, longest)
        answers = iter(found)
        types: dict[str, ColumnType] = dict.fromkeys(kept, "text")
        for name in free:
            some = next(answers)
            fits = [next(answers) for _ in patterns[name]]
            wanted = said.get(name)
            if wanted is None:
                fitting: list[ColumnType] = [kind for kind, fit in zip(possible[name], fits, strict=True) if fit]
                types[name] = fitting[0] if fitting else "text"
                continue
            types[name] = wanted
            if not some or all(fits):
                continue
            if name not in spec.types:
                self._misfitting.add(name)  # rows with values of another type are rejected one by one
            else:
                raise StoreError(
                    f"{self.where}: column {name!r} cannot be read as {wanted}: some of its values are not written as"
                    " JSON writes it (no leading zeros, at most 15 digits, a point before decimals, true or false)"
                )
        return types

    def _possible(self, names: Sequence[str]) -> dict[str, list[ColumnType]]:
        """Return the types that the first rows allow for each column; only these are then checked on all rows."""
        possible: dict[str, list[ColumnType]] = {name: list(_INFERRED) for name in names}
        if names:
            facts = [
                f"coalesce({all_are(self._place[name], _INFERRED[kind])}, true)"
                for name in names
                for kind in possible[name]
            ]
            # The scan of the whole file reports errors.
            with contextlib.suppress(StoreError):
                found = self._fetch(f"SELECT {', '.join(facts)} FROM (FROM {self._scan} LIMIT {_SAMPLE})")[0]  # noqa: S608  # as above
                answers = iter(found)
                possible = {name: [kind for kind in kinds if next(answers)] for name, kinds in possible.items()}
        return possible

    def _explain(self, message: str) -> str:
        at = re.search(r"on Line: (\d+)", message)
        where = f"{self.where}, line {int(at[1]):,}" if at else self.where
        if "Invalid unicode" in message or "encoded" in message:
            return wrong_encoding(self.where, int(at[1]) if at else 1, self._codec)
        if columns := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
            return f"{where}: {OTHER_WIDTH.format(columns[2], columns[1])}"
        if "unterminated quote" in message:
            return f"{where}: {UNCLOSED}"
        if "line size" in message.lower():
            return f"{where}: {TOO_LONG}"
        if self._gzipped:
            return f"{where}: cannot be read to its end; is it whole, and CSV?"
        return f"{where}: not CSV; fields are separated by one delimiter and quoted with double quotes"
