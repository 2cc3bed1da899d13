"""Detection of the encoding of a text file."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from ..errors import ConfigurationError

__all__ = ["CR_ALONE", "INVALID", "MARKED", "Text", "decoded_lines", "ends_in_cr", "sniff", "why_not_text"]

CR_ALONE = "its lines end in CR alone; convert them first, e.g. with tr '\\r' '\\n'"

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class Text:
    """The encoding of a text file.

    Args:
        codec: Python's name of the encoding.
        mark: the byte order mark at the beginning; empty if there is none.
    """

    codec: str = "utf-8"
    mark: bytes = b""

    @property
    def universal(self) -> bool:
        """Whether it can encode every character."""
        return self.codec.startswith("utf")

    @property
    def by_bytes(self) -> bool:
        """Whether a line feed is always the one byte 0x0A."""
        return not self.codec.startswith(("utf-16", "utf-32"))


INVALID = "\udcff"
"""What `MARKED` makes of what is not valid: the byte 0xFF in UTF-8, which no character has."""


def _mark_invalid(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101  # it is registered for decoding alone
    return INVALID, error.end


MARKED = "profile_enrich.invalid"
"""The name of an error handler for decoding."""
codecs.register_error(MARKED, _mark_invalid)


def decoded_lines(stream: IO[bytes], codec: str) -> Iterator[str]:
    """Yield the lines of a text that cannot be split before it is decoded; one that is not valid has `INVALID`."""
    decoder = codecs.getincrementaldecoder(codec)(errors=MARKED)
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # of a pipe, what is there
    rest = ""
    while block := read(1 << 16):
        *lines, rest = (rest + decoder.decode(block)).split("\n")
        for line in lines:
            yield f"{line}\n"
    if rest := rest + decoder.decode(b"", final=True):
        yield rest


def ends_in_cr(text: str) -> bool:
    """Return whether a line feed is missing between the lines of a CSV file that begins with this text."""
    first, end, _ = text.rstrip("\r\n").partition("\r")
    return bool(end) and first.count('"') % 2 == 0


def sniff(head: bytes, encoding: str | None) -> Text:
    """Return the encoding of a text file.

    Args:
        head: its first bytes, at least four if available.
        encoding: the specified encoding; `None` for that of the byte order mark, otherwise UTF-8.

    Raises:
        ConfigurationError: the encoding is unknown, or cannot be used line by line.
    """
    if encoding is None:
        for mark, codec in _MARKS:
            if head.startswith(mark):
                return Text(codec, mark)
        return Text()
    name = ""
    try:
        name = codecs.lookup(encoding).name
        "\n".encode(name)
    except (LookupError, TypeError):
        name = ""
    if not name or name.startswith("utf-32") or name in ("utf-7", "idna", "punycode"):
        raise ConfigurationError(
            f"encoding={encoding!r} is not a text encoding that can be read by lines; use e.g. utf-8, cp1252 or utf-16"
        )
    if name in ("utf-8", "utf-8-sig"):
        return Text("utf-8", codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b"")
    if name == "utf-16":
        big = head.startswith(codecs.BOM_UTF16_BE)
        codec, mark = ("utf-16-be", codecs.BOM_UTF16_BE) if big else ("utf-16-le", codecs.BOM_UTF16_LE)
        return Text(codec, mark if head.startswith(mark) else b"")
    if name in ("utf-16-le", "utf-16-be"):
        mark = codecs.BOM_UTF16_LE if name.endswith("le") else codecs.BOM_UTF16_BE
        return Text(name, mark if head.startswith(mark) else b"")
    if head.startswith(codecs.BOM_UTF8):  # no text in another encoding begins so
        return Text("utf-8", codecs.BOM_UTF8)
    return Text(name)


def why_not_text(head: bytes, text: Text) -> str | None:
    """Return why a file's first bytes cannot be text in its encoding, with the remedy; `None` if they may be.

    Without a byte order mark, UTF-16 shows in the zero bytes of its first characters.
    """
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive or a spreadsheet, not text; unpack it, or export it as CSV"
    if head.startswith(b"\x1f\x8b"):
        return "compressed with gzip; let its name end in .gz"
    if not text.by_bytes or b"\0" not in head[:4]:
        return None
    codec = "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
    return f"not {text.codec.upper()}; is it UTF-16? Then pass encoding={codec!r}"
