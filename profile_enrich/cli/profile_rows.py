"""Encoding of profiles as CSV, JSONL or Parquet."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Literal

from ..errors import ConfigurationError
from ..pipeline.files.column_types import alias, notice
from ..pipeline.files.formats import arrow
from ..pipeline.tables.columns import Columns
from ..sources.amperity import ProfileRow
from ..sources.amperity_messages import read_profile

__all__ = ["Format", "ProfileRowEncoder", "flat"]

Format = Literal["csv", "jsonl", "parquet"]

_GROUP = 65_536
"""The largest number of rows in a row group of a Parquet file."""

_TEXT = frozenset({str, type(None)})

_json = json.JSONEncoder(ensure_ascii=False).encode


def flat(row: ProfileRow) -> Mapping[str, object]:
    """Return a profile as columns: `id`, then its attributes.

    An attribute named `id` becomes `attributes.id`, unless it equals the profile's id.
    """
    own = row.attributes.get("id")
    if own == row.id:  # in their order; "id" is the first column anyway
        return row.attributes
    if "id" not in row.attributes:
        return {"id": row.id, **row.attributes}
    columns: dict[str, object] = {"id": row.id}
    for name, value in row.attributes.items():
        if name != "id":
            columns[name] = value
        else:
            columns["attributes.id"] = value
    return columns


class ProfileRowEncoder:
    """Encode pages of profiles.

    CSV follows RFC 4180: UTF-8, CRLF, fields quoted where they need it. JSONL has each profile as the vendor sent it.
    Parquet is written at the end, when the types of all columns are known; its pages are those of JSONL until then.

    Args:
        format: `"csv"`, `"jsonl"` or `"parquet"`.
        columns: of the CSV or Parquet; `None` for those of the first page (CSV), or all (Parquet), in order of
            appearance.
        strict: whether an unknown column of a CSV is an error; otherwise it is left out and counted.
    """

    def __init__(self, format: Format, columns: Sequence[str] | None = None, *, strict: bool = False) -> None:
        self.format: Format = format
        self.columns = None if columns is None else list(columns)
        self.strict = strict
        self.chosen = columns is not None
        self.left_out: Counter[str] = Counter()
        """Columns that appeared after the first page, with their number of rows."""
        self.kinds: dict[str, str] = {"id": "null"} if columns is None else dict.fromkeys(columns, "null")
        """The kinds of the values of a Parquet file, by column; see `notice`."""
        self.unseen = set(columns or ())
        """The chosen columns that no profile has had."""

    def page(self, rows: Iterable[ProfileRow], *, header: bool, texts: Sequence[str] = ()) -> bytes:
        """Encode one page.

        Args:
            rows: the profiles.
            header: whether to start with the CSV header.
            texts: the rows as the vendor sent them, each on one line; JSONL and Parquet's pages hold these.

        Raises:
            ConfigurationError: a row has an unknown column, and `strict` is true.
        """
        rows = list(rows)
        if self.format == "parquet":
            self._notice(list(map(flat, rows)))
        if self.format == "csv":
            text = self._csv(list(map(flat, rows)), header=header)
        elif texts:
            text = "\n".join(texts) + "\n"
        else:
            text = "".join(
                [_json({"id": row.id, "index_id": row.index_id, "attributes": row.attributes}) + "\n" for row in rows]
            )
        # UTF-8 cannot encode a lone surrogate, so write its JSON escape.
        return text.encode("utf-8", "backslashreplace")

    def _csv(self, rows: list[Mapping[str, object]], *, header: bool) -> str:
        self._see(rows)
        if self.columns is None:
            self.columns = list(dict.fromkeys(["id", *(name for row in rows for name in row)]))
        known = set(self.columns)
        if not self.chosen:
            for row in rows:
                if not known.issuperset(row):
                    self.left_out.update(name for name in row if name not in known)
            if self.strict and self.left_out:
                raise ConfigurationError(
                    f"columns that the first page did not have: {', '.join(sorted(self.left_out))}. "
                    "Name all columns with --columns"
                )
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\r\n")  # with \n alone, Python < 3.13 leaves a bare \r unquoted
        if header:
            writer.writerow(self.columns)
        cells = [[*map(row.get, self.columns)] for row in rows]
        writer.writerows([each if _TEXT.issuperset(map(type, each)) else [*map(_cell, each)] for each in cells])
        return buffer.getvalue()

    def _see(self, rows: Iterable[Mapping[str, object]]) -> None:
        for row in rows if self.unseen else ():
            self.unseen.difference_update(row)

    def _notice(self, rows: list[Mapping[str, object]]) -> None:
        self._see(rows)
        settled = {name for name, kind in self.kinds.items() if kind == "text"}
        for row in rows:
            kept = {name: row.get(name) for name in self.columns} if self.columns is not None else row
            if not settled.issuperset(kept):
                notice(self.kinds, kept)

    def write_parquet(self, journal: BinaryIO, file: BinaryIO) -> None:
        """Write the Parquet file of all pages.

        Args:
            journal: the bytes of the pages.
            file: the output file.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        pa, parquet = arrow(), arrow("pyarrow.parquet")
        columns = Columns({name: alias(kind) for name, kind in self.kinds.items()}, "")
        schema = pa.schema(columns.schema())
        with parquet.ParquetWriter(file, schema) as writer:
            while lines := list(itertools.islice(journal, _GROUP)):
                table = self._of_text(lines, schema)
                if table is None:
                    rows = json.loads((b"[%b]" % b",".join(lines)).decode())
                    arrays, _ = columns.fill([flat(read_profile(row)) for row in rows])
                    table = pa.table(list(arrays.values()), schema=schema)
                writer.write_table(table, row_group_size=_GROUP)

    def _of_text(self, lines: list[bytes], schema: Any) -> Any:
        """Return the Arrow table of profiles whose attributes are all text; `None` for others."""
        if "attributes.id" in self.kinds or not {"text", "null"}.issuperset(self.kinds.values()):
            return None
        pa, arrow_json = arrow(), arrow("pyarrow.json")
        attributes = [each for each in schema if each.name != "id"]
        data = b"".join(lines)
        try:
            read = arrow_json.read_json(
                pa.BufferReader(data),
                read_options=arrow_json.ReadOptions(block_size=len(data)),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=pa.schema([("id", pa.string()), ("attributes", pa.struct(attributes))]),
                    unexpected_field_behavior="ignore",
                ),
            ).combine_chunks()
        except (pa.ArrowException, OverflowError):  # an attribute that is text in some profiles only
            return None
        found = dict(
            zip([each.name for each in attributes], read["attributes"].combine_chunks().flatten(), strict=True)
        )
        return pa.table([found.get(name, read["id"]) for name in schema.names], schema=schema)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value)
