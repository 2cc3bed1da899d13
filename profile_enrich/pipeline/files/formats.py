"""What a file is: its format by its name, its encoding by its first bytes."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import importlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from ...errors import ConfigurationError, InputError, MissingExtraError

__all__ = ["FileFormat", "FileSpec", "Text", "arrow", "identity", "open_binary", "sniff"]

FileFormat = Literal["csv", "jsonl", "parquet"]

_SUFFIXES: dict[str, tuple[FileFormat, str]] = {
    ".csv": ("csv", ","),
    ".tsv": ("csv", "\t"),
    ".jsonl": ("jsonl", ","),
    ".ndjson": ("jsonl", ","),
    ".parquet": ("parquet", ","),
    ".pq": ("parquet", ","),
}

_END = 2**20
"""Bytes at each end of the input that are hashed to recognise it."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One file, or standard input or output.

    Args:
        path: `None` for standard input or output.
        format: of the records.
        delimiter: of a CSV.
        gzip: whether it is compressed.
    """

    path: Path | None
    format: FileFormat
    delimiter: str = ","
    gzip: bool = False

    @classmethod
    def of(cls, given: str | Path, format: FileFormat | None = None, *, what: str = "the input") -> FileSpec:
        """Understands a path by its suffix: `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.parquet`, `.pq`, with `.gz` or not.

        Args:
            given: the path; `-` for standard input or output.
            format: what it is, whatever its name says.
            what: what to call it in a message.

        Raises:
            ConfigurationError: the name does not say what it is, or the format cannot be had there.
        """
        path = None if str(given) == "-" else Path(given)
        suffixes = [] if path is None else [suffix.lower() for suffix in path.suffixes]
        packed = bool(suffixes) and suffixes[-1] == ".gz"
        if packed:
            suffixes.pop()
        told = _SUFFIXES.get(suffixes[-1]) if suffixes else None
        form = format or (told[0] if told else None)
        if form is None:
            raise ConfigurationError(
                f"{what}: its name does not say whether it is CSV, JSONL or Parquet; say which (csv, jsonl, parquet)"
            )
        if form == "parquet" and (path is None or packed):
            where = "standard input or output" if path is None else "a .gz file"
            raise ConfigurationError(f"{what}: Parquet cannot be in {where}; it needs a file of its own")
        return cls(path, form, told[1] if told else ",", packed)

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return "standard input" if self.path is None else self.path.name


@dataclass(frozen=True, slots=True)
class Text:
    """How the characters of a text file are written.

    Args:
        codec: Python's name.
        mark: the byte order mark at the beginning; empty when there is none.
    """

    codec: str = "utf-8"
    mark: bytes = b""

    @property
    def universal(self) -> bool:
        """Whether every character can be written."""
        return self.codec.startswith("utf")

    @property
    def by_bytes(self) -> bool:
        """Whether a line feed is always the one byte 0x0A."""
        return not self.codec.startswith(("utf-16", "utf-32"))


def sniff(head: bytes, encoding: str | None) -> Text:
    """How a text file is written.

    Args:
        head: its first bytes, at least four where it has them.
        encoding: what the user said; `None`: what the byte order mark says, else UTF-8.

    Raises:
        ConfigurationError: there is no such encoding, or it cannot be used line by line.
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
        raise ConfigurationError("encoding must be the name of a text encoding such as utf-8, latin-1 or utf-16")
    if name in ("utf-8", "utf-8-sig"):
        return Text("utf-8", codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b"")
    if name == "utf-16":
        big = head.startswith(codecs.BOM_UTF16_BE)
        codec, mark = ("utf-16-be", codecs.BOM_UTF16_BE) if big else ("utf-16-le", codecs.BOM_UTF16_LE)
        return Text(codec, mark if head.startswith(mark) else b"")
    if name in ("utf-16-le", "utf-16-be"):
        mark = codecs.BOM_UTF16_LE if name.endswith("le") else codecs.BOM_UTF16_BE
        return Text(name, mark if head.startswith(mark) else b"")
    return Text(name)


def open_binary(spec: FileSpec) -> BinaryIO:
    """Opens a text file for reading, decompressed.

    Raises:
        InputError: it cannot be opened.
    """
    failed = ""
    try:
        if spec.path is None:
            return _standard_input()
        if spec.gzip:
            return cast(BinaryIO, io.BufferedReader(cast(Any, gzip.open(spec.path, "rb")), 2**17))
        return spec.path.open("rb", buffering=2**17)
    except OSError as error:
        failed = error.strerror or "it cannot be opened"
    raise InputError(f"{spec.path}: {failed}")


def _standard_input() -> BinaryIO:
    """What is there is read, not waited for what would fill a buffer; and the end of the process finds no lock held."""
    try:
        return cast(BinaryIO, open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    except (OSError, ValueError):  # it was replaced by something that is no file
        return cast(BinaryIO, sys.stdin.buffer)


def identity(spec: FileSpec) -> dict[str, str]:
    """What an input is recognised by: its size, when it was changed, and a hash of its first and last MiB.

    Raises:
        InputError: it cannot be read.
    """
    if spec.path is None:
        return {}
    failed = ""
    try:
        with spec.path.open("rb") as file:
            facts = spec.path.stat()
            digest = hashlib.sha256(file.read(_END))
            file.seek(max(0, facts.st_size - _END))
            digest.update(file.read(_END))
        return {"size": str(facts.st_size), "time": str(facts.st_mtime_ns), "content": digest.hexdigest()}
    except OSError as error:
        failed = error.strerror or "it cannot be read"
    raise InputError(f"{spec.path}: {failed}")


def arrow(name: str = "pyarrow") -> Any:
    """A module of pyarrow, which has no types of its own.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        pass
    raise MissingExtraError("a Parquet file", "arrow")
