"""Checksums of records and posting lists, checked at each read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

__all__ = ["DamagedData", "record_checksum", "record_seed", "record_seeds", "value_checksum", "value_checksums"]

_COLUMN = 0x9E3779B1


class DamagedData(Exception):
    """Data read from a file do not match their checksum."""


def record_seed(docid: int, key: str) -> int:
    """Return the checksum of a record without payload; `crc32(payload, seed)` is that of one with a payload.

    It covers the docid and the key, so it also detects a damaged index that points to another record.
    """
    return crc32(key.encode(), docid & 0xFFFFFFFF)


def record_seeds(docids: Sequence[int], keys: Sequence[str]) -> list[int]:
    """Return `record_seed` of many records."""
    return list(map(crc32, map(str.encode, keys), [docid & 0xFFFFFFFF for docid in docids]))


def record_checksum(docid: int, key: str, payload: bytes | None) -> int:
    """Return the checksum of one payload of a record; `None` is the payload of a deleted record."""
    return crc32(payload or b"", record_seed(docid, key))


def value_checksum(column: int, value: str, number: int, content: bytes = b"") -> int:
    """Return the checksum of what a file holds for one value of a filterable column.

    Args:
        column: the number of the column.
        value: the value.
        number: the segment number, the docid, or the number of records with the value.
        content: the segment's bitmap, serialized.
    """
    checksum = crc32(value.encode(), (column * _COLUMN + number) & 0xFFFFFFFF)
    return crc32(content, checksum) if content else checksum


def value_checksums(columns: Sequence[int], values: Sequence[str], numbers: Sequence[int]) -> Iterator[int]:
    """Return `value_checksum` of many values without a segment."""
    seeds = [(column * _COLUMN + number) & 0xFFFFFFFF for column, number in zip(columns, numbers, strict=True)]
    return map(crc32, map(str.encode, values), seeds)
