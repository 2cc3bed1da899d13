"""Check the rows of a CSV file as Python's strict reader does, where the database engine is more lenient."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from ...errors import StoreError
from .private_copy import blocks

__all__ = [
    "FEWER",
    "MAX_ROW",
    "MORE",
    "NOT_UTF8",
    "OTHER_WIDTH",
    "TOO_LONG",
    "UNCLOSED",
    "copy_rows",
    "is_plain",
]

MAX_ROW = 1 << 22
"""The longest row, in bytes."""

NOT_UTF8 = "not valid UTF-8"
TOO_LONG = "longer than 4 MB"
CARRIAGE_RETURN = "a carriage return in a field that is not quoted"
MORE = "more fields than the header line names; one that holds the delimiter must be quoted"
FEWER = "fewer fields than the header line names"
SPACED = "a space before a quoted field"
UNCLOSED = 'a quoted field is not closed properly; a quote inside quotes is written twice ("")'
OTHER_WIDTH = "{} fields, but the header line names {}; a field that holds the delimiter must be quoted"


def is_plain(file: IO[bytes], delimiter: str) -> bool:
    """Return whether the engine reads the whole file as Python's reader does. This reads the file to its end.

    The engine accepts NUL bytes, drops spaces around a quoted field and an empty field beyond the header's, reads a
    blank line as a row if there is one column, and stops at a line end that differs from the first.
    """
    risky = {'"': (' "', '" '), "\0": ("\0",), "\n": ("\n\n", f"{delimiter}\n"), "\r": ("\n\r", f"{delimiter}\r")}
    # A single character is found several times as fast as a pair.
    ends = [(one.encode(), pair.encode()) for one, both in risky.items() for pair in both]
    plain, last = True, b""
    returns = pairs = feeds = 0
    for block in blocks(file):
        text = last + block
        plain = plain and not any(one in text and pair in text for one, pair in ends)
        feeds += block.count(b"\n")
        if b"\r" in text:
            returns += block.count(b"\r")
            pairs += text.count(b"\r\n") - last.count(b"\r\n")
        last = text[-8:]
    return plain and returns == pairs and pairs in (0, feeds) and not last.endswith(delimiter.encode())


def copy_rows(
    lines: Iterable[bytes],
    first: int,
    delimiter: str,
    width: int,
    where: str,
    refuse: Callable[[int, str, str, int], None],
) -> Iterator[bytes]:
    """Yield the rows that Python's strict reader accepts, each with a line feed, without blank lines.

    Args:
        lines: the lines after the header, in UTF-8.
        first: the number of the first of them.
        delimiter: one character.
        width: the number of fields of each row.
        where: the input, for messages.
        refuse: called for each other row, with its line, the reason, its text and its number of fields.

    Raises:
        StoreError: a quoted field that is not on the last line never ends: it is unknown where the next row begins.
    """
    grammar = _Grammar(delimiter)
    parts: list[bytes] = []  # the lines of a row whose last field is open
    before = begun = size = found = 0
    spaced = False
    for number, line in enumerate(lines, first):
        reason = ""
        text = line.decode("utf-8", "surrogateescape")
        if parts:
            size += len(line)
            parts.append(line)
            closed = grammar.closing.match(text)
            if closed is None and size <= MAX_ROW:
                continue
            if closed is None:
                raise StoreError(f"{where}, line {begun:,}: {UNCLOSED}")
            text = f'""{text[closed.end() :]}'  # continue after the field, as if it had been empty
        else:
            before, begun, size, spaced = 0, number, len(line), False
            parts = [line]
        body = text.rstrip("\r\n")
        if '"' not in body:
            found = body.count(delimiter) + 1
            reason = CARRIAGE_RETURN if "\r" in body else ""
        else:
            end = grammar.begun.match(body).end()  # type: ignore[union-attr]  # it matches the empty text, too
            before += len(grammar.one.findall(body, 0, end))
            spaced = spaced or (' "' in body and grammar.spaced(body, end))
            if grammar.field.fullmatch(body, end):
                found, reason = before + 1, SPACED if spaced else ""
            elif grammar.opened.fullmatch(text, end):
                continue
            else:
                reason = UNCLOSED
        row, parts = b"".join(parts), []
        if not row.strip(b"\r\n"):
            continue
        if not _is_utf8(row):
            reason = NOT_UTF8
        elif b"\0" in row:
            reason = "a NUL byte"
        elif size > MAX_ROW:
            reason = TOO_LONG
        elif not reason and found != width:
            reason = MORE if found > width else FEWER
        if reason:
            refuse(begun, reason, row.decode("utf-8", "backslashreplace").rstrip("\r\n"), found)
        else:
            yield row.rstrip(b"\r\n") + b"\n"
    if len(parts) > 1:
        raise StoreError(f"{where}, line {begun:,}: {UNCLOSED}")
    if parts:  # only the last line, so it holds no other row
        refuse(begun, UNCLOSED, b"".join(parts).decode("utf-8", "backslashreplace").rstrip("\r\n"), found)


class _Grammar:
    """Patterns of a row.

    Args:
        delimiter: one character.
    """

    def __init__(self, delimiter: str) -> None:
        d = re.escape(delimiter)
        field = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{d}\r\n][^{d}\r\n]*|)'
        self.field = re.compile(field)
        self.opened = re.compile(r'"[^"]*(?:""[^"]*)*')
        self.closing = re.compile(r'[^"]*(?:""[^"]*)*"(?!")')
        self.begun = re.compile(rf"(?:{field}{d})*")
        self.one = re.compile(rf"{field}{d}")

    def spaced(self, text: str, end: int) -> bool:
        """Return whether one of the fields, of which the last begins at `end`, has spaces before a quote."""
        fields = [*self.one.findall(text, 0, end), text[end:]]
        return any(field.startswith(" ") and field.lstrip(" ").startswith('"') for field in fields)


def _is_utf8(row: bytes) -> bool:
    try:
        return row.isascii() or bool(row.decode())
    except UnicodeDecodeError:
        return False
