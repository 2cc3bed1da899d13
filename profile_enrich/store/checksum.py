"""Checksums of records and posting lists, checked at each read."""

from __future__ import annotations

from zlib import crc32

__all__ = ["DamagedData", "record_checksum", "record_seed", "value_checksum"]


class DamagedData(Exception):
    """Data read from a file do not match their checksum."""


def record_seed(docid: int, key: str) -> int:
    """Return the checksum of a record without payload; `crc32(payload, seed)` is that of one with a payload.

    It covers the docid and the key, so it also detects a damaged index that points to another record.
    """
    return crc32(key.encode(), docid & 0xFFFFFFFF)


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
    checksum = crc32(value.encode(), (column * 0x9E3779B1 + number) & 0xFFFFFFFF)
    return crc32(content, checksum) if content else checksum
