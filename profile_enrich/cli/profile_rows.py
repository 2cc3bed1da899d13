"""Profiles as lines of CSV or JSONL."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from ..errors import ConfigurationError
from ..sources.amperity import ProfileRow

__all__ = ["Format", "ProfileRowEncoder", "flat"]

Format = Literal["csv", "jsonl"]


def flat(row: ProfileRow) -> dict[str, object]:
    """A profile as columns: `id`, then its attributes.

    An attribute that is itself called `id` becomes `attributes.id`, unless it says the same as the profile's id.
    """
    columns: dict[str, object] = {"id": row.id}
    for name, value in row.attributes.items():
        if name != "id":
            columns[name] = value
        elif value != row.id:
            columns["attributes.id"] = value
    return columns


class ProfileRowEncoder:
    """Makes bytes of pages of profiles.

    CSV follows RFC 4180: UTF-8, CRLF, fields quoted where they need it. JSONL holds each profile as the vendor sent it.

    Args:
        format: `"csv"` or `"jsonl"`.
        columns: of the CSV; `None`: those of the first page, in order of appearance.
        strict: a column that is not among them is an error instead of left out and counted.
    """

    def __init__(self, format: Format, columns: Sequence[str] | None = None, *, strict: bool = False) -> None:
        self.format: Format = format
        self.columns = None if columns is None else list(columns)
        self.strict = strict
        self.chosen = columns is not None
        self.left_out: Counter[str] = Counter()
        """Columns that came after the first page, and in how many rows."""

    def page(self, rows: Iterable[ProfileRow], *, header: bool) -> bytes:
        """One page as bytes.

        Args:
            rows: the profiles.
            header: put the CSV's header line first.

        Raises:
            ConfigurationError: a row has a column that the file has not, and `strict` was said.
        """
        if self.format == "jsonl":
            lines = (
                json.dumps({"id": row.id, "index_id": row.index_id, "attributes": row.attributes}, ensure_ascii=False)
                for row in rows
            )
            text = "".join(f"{line}\n" for line in lines)
        else:
            text = self._csv([flat(row) for row in rows], header=header)
        # A lone surrogate has no UTF-8; its escape is what JSON would have written.
        return text.encode("utf-8", "backslashreplace")

    def _csv(self, rows: list[dict[str, object]], *, header: bool) -> str:
        if self.columns is None:
            self.columns = list(dict.fromkeys(["id", *(name for row in rows for name in row)]))
        known = set(self.columns)
        if not self.chosen:
            for row in rows:
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
        writer.writerows([_cell(row.get(name)) for name in self.columns] for row in rows)
        return buffer.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
