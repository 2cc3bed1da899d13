"""Reader of text lines: decompressed, decoded, counted."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO

from ..._utils.text_encoding import INVALID, decoded_lines, sniff, why_not_text
from ...errors import InputError
from .formats import FileSpec
from .record_reader import RecordReader

__all__ = ["TextReader", "decoded"]

_SOME = 2**16
"""Bytes of lines that are decoded together."""


class TextReader(RecordReader):
    """Read, decompress, decode and count lines of text.

    Args:
        spec: the file.
        key: the column to look up by.
        encoding: the encoding of the text; `None` for the one of the byte order mark, else UTF-8.
        file: the open file.
    """

    def __init__(self, spec: FileSpec, key: str, encoding: str | None, file: BinaryIO) -> None:
        super().__init__(spec, key)
        self._file = file
        self._size = spec.path.stat().st_size if spec.path is not None and not spec.gzip else 0
        self._read = 0
        head = b""
        with _readable(spec.name):
            while len(head) < 4 and (more := self._file.read(4 - len(head))):  # unbuffered for a pipe
                head += more
        self.text = sniff(head, encoding)
        if problem := why_not_text(head, self.text):
            raise InputError(f"{spec.name}: {problem}")
        joined = _Joined(spec.name, head[len(self.text.mark) :], self._file, self._hash.update)
        self._stream = io.BufferedReader(joined, 2**17)
        self._line = 0
        self._given = 0
        self._ahead: list[bytes] = []
        self._decoded: Iterator[str] | None = None

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines with their endings, without the byte order mark, and count them."""
        for raw in self._stream:
            self._read += len(raw)
            self._line += 1
            yield raw

    def _some_strings(self) -> list[str]:
        """Return the next lines as text, without counting them; empty at the end.

        Raises:
            InputError: the next line has another encoding.
        """
        codec = self.text.codec
        if not self.text.by_bytes:
            if self._decoded is None:
                self._decoded = decoded_lines(self._stream, codec)
            line = next(self._decoded, "")
            if INVALID in line:
                raise self._broken(f"not {codec}; pass the encoding of the file", self._given + 1)
            self._read += 2 * len(line)
            self._given += 1
            return [line] if line else []
        raws = self._ahead or self._stream.readlines(1 if self.spec.is_stream else _SOME)
        self._ahead = []
        self._read += sum(map(len, raws))
        texts: list[str] = []
        try:
            texts = [raw.decode(codec) for raw in raws]
            self._given += len(texts)
            return texts
        except UnicodeDecodeError:
            pass
        for at, raw in enumerate(raws):
            text = decoded(raw, codec)
            if text is None:
                self._ahead = raws[at:]
                self._read -= sum(map(len, self._ahead))
                break
            texts.append(text)
        if not texts:
            raise self._broken(
                f"not {codec}; pass the encoding of the file, e.g. encoding='cp1252' (Windows) or 'latin-1'",
                self._given + 1,
            )
        self._given += len(texts)
        return texts

    def _strings(self) -> Iterator[str]:
        """Yield the lines as text, counted. See `_some_strings`."""
        while some := self._some_strings():
            for line in some:
                self._line += 1
                yield line

    @property
    def fraction(self) -> float | None:
        """See `RecordReader`."""
        return min(1.0, self._read / self._size) if self._size else None

    def close(self) -> None:
        """See `RecordReader`."""
        if self.spec.path is not None:
            self._file.close()


class _Joined(io.RawIOBase):
    """A stream of the bytes read for detection, followed by the rest of the file."""

    def __init__(self, name: str, head: bytes, file: BinaryIO, update: Callable[[bytes], None]) -> None:
        self._name = name
        self._head = head
        self._file = file
        self._update = update

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head
        if not piece:
            with _readable(self._name):
                piece = self._file.read(len(buffer))
        self._head = piece[len(buffer) :]
        piece = piece[: len(buffer)]
        self._update(piece)
        buffer[: len(piece)] = piece
        return len(piece)


@contextlib.contextmanager
def _readable(name: str) -> Generator[None]:
    """Convert read errors to an `InputError` with the file and the reason."""
    problem = ""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        problem = "the gzip data is damaged or cut off; get the file again, or decompress it as far as it goes"
    except OSError as error:
        problem = error.strerror or "it cannot be read any further"
    if problem:
        raise InputError(f"{name}: {problem}")


def decoded(raw: bytes, codec: str) -> str | None:
    """Decode bytes; `None` if they have another encoding."""
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        return None
