"""Exact-match filters: intersection of posting lists.

The lists are intersected segment by segment, the rarest value first, and iteration stops when a page is full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .bitmaps import SEGMENT_BITS, BitMap
from .postings import PostingList, PostingReader, iterate

__all__ = ["HiddenDocids", "count", "matching"]


class HiddenDocids:
    """The docids in newer layers, which hide those in older ones.

    Args:
        layers: each newer layer's reader, and the posting list of all its docids.
    """

    def __init__(self, layers: Sequence[tuple[PostingReader, PostingList]]) -> None:
        self._layers = layers
        self._known: dict[int, BitMap | None] = {}
        self._segments: list[int] | None = None

    def bitmap(self, segment: int) -> BitMap | None:
        """Return the hidden docids of one segment; `None` if there are none."""
        if segment not in self._known:
            parts = [part for reader, live in self._layers if (part := reader.bitmap(live, segment)) is not None]
            self._known[segment] = parts[0].union(*parts[1:]) if parts else None
        return self._known[segment]

    def __contains__(self, docid: int) -> bool:
        segment = docid >> SEGMENT_BITS
        bitmap = self.bitmap(segment)
        return bitmap is not None and docid - (segment << SEGMENT_BITS) in bitmap

    def segments(self) -> list[int]:
        """Return the segments that have hidden docids."""
        if self._segments is None:
            self._segments = sorted({number for reader, live in self._layers for number in reader.segments(live)})
        return self._segments


def _shared(
    reader: PostingReader, postings: Sequence[PostingList], first: int, hidden: HiddenDocids | None
) -> Iterator[tuple[int, BitMap]]:
    """Yield the docids common to all posting lists, segment by segment."""
    rarest, *others = sorted(postings, key=lambda posting: posting.records)
    for segment in reader.segments(rarest, first):
        found = reader.bitmap(rarest, segment)
        for posting in others:
            if not found:
                break
            other = reader.bitmap(posting, segment)
            found = None if other is None else found & other
        if found and hidden is not None and (covered := hidden.bitmap(segment)) is not None:
            found = found - covered
        if found:
            yield segment, found


def matching(
    reader: PostingReader, postings: Sequence[PostingList], after: int, hidden: HiddenDocids | None = None
) -> Iterator[int]:
    """Yield the visible docids common to all posting lists and greater than `after`, ascending."""
    for segment, found in _shared(reader, postings, (after + 1) >> SEGMENT_BITS, hidden):
        yield from iterate(segment, found, after + 1)


def count(reader: PostingReader, postings: Sequence[PostingList], hidden: HiddenDocids | None = None) -> int:
    """Return the number of visible docids common to all posting lists."""
    if len(postings) > 1:
        return sum(len(found) for _, found in _shared(reader, postings, 0, hidden))
    (posting,) = postings
    total = posting.records
    for segment in hidden.segments() if hidden is not None else ():  # only where docids are hidden
        found, covered = reader.bitmap(posting, segment), hidden.bitmap(segment) if hidden is not None else None
        if found is not None and covered is not None:
            total -= found.intersection_cardinality(covered)
    return total
