"""Compressed bitmaps (CRoaring through `pyroaring`, extra `server`)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..._utils.optional_import import import_extra

if TYPE_CHECKING:
    from pyroaring import BitMap, BitMap64
else:
    try:
        from pyroaring import BitMap, BitMap64
    except ImportError:  # pragma: no cover  # require_bitmaps() reports it where a store is opened
        BitMap = BitMap64 = None

__all__ = ["SEGMENT_BITS", "WHOLE", "BitMap", "BitMap64", "require_bitmaps", "segment_bitmaps"]

SEGMENT_BITS = 18
"""A segment has 2**18 (262,144) docids. A page of a common value reads only the segments that it needs."""

WHOLE = 1 << 15
"""The docids of a value with at most this many records are kept in one bitmap."""


def require_bitmaps() -> None:
    """Check that `pyroaring` is installed.

    Raises:
        MissingExtraError: it is not installed.
    """
    import_extra("pyroaring", "a local store", "server")


def segment_bitmaps(docids: Iterable[int]) -> dict[int, BitMap]:
    """Return the docids of each segment."""
    found: dict[int, array[int]] = {}
    for docid in docids:
        found.setdefault(docid >> SEGMENT_BITS, array("I")).append(docid)
    return {segment: BitMap(some) for segment, some in found.items()}
