"""Exact-match filters: intersection of posting lists.

The bitmaps of values with few records are intersected at once. Those of common values are intersected segment by
segment, the rarest value first, and iteration stops when a page is full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter

from .bitmaps import SEGMENT_BITS, BitMap
from .postings import PostingList, PostingReader, segments_of

__all__ = ["HiddenDocids", "count", "matching"]

_HEAD = 256
"""Whole segments are intersected only if this many docids of the rarest value do not fill the page."""

_records = attrgetter("records")


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
            parts = [part for reader, live in self._layers if (part := reader.segment(live, segment)) is not None]
            self._known[segment] = parts[0].union(*parts[1:]) if parts else None
        return self._known[segment]

    def __contains__(self, docid: int) -> bool:
        bitmap = self.bitmap(docid >> SEGMENT_BITS)
        return bitmap is not None and docid in bitmap

    def segments(self) -> list[int]:
        """Return the segments that have hidden docids."""
        if self._segments is None:
            self._segments = sorted({number for reader, live in self._layers for number in reader.segments(live)})
        return self._segments


def _shared(
    reader: PostingReader, postings: Sequence[PostingList], first: int, hidden: HiddenDocids | None, head: int = 0
) -> Iterator[BitMap]:
    """Yield the docids common to all posting lists, in ascending parts, which may have docids before `first`.

    If `head` is given, the first `head` docids of the rarest value in a segment are intersected separately, first.
    """
    shared: BitMap | None = None
    common: list[PostingList] = []
    for posting in sorted(postings, key=_records):  # the rarest first, which keeps what is intersected small
        whole = reader.whole(posting)
        if whole is None:
            common.append(posting)
        else:
            shared = whole if shared is None else shared & whole
    start = first >> SEGMENT_BITS
    if shared is not None and not common:
        parts = map(hidden.bitmap, segments_of(shared, start)) if hidden is not None else ()
        outdated = [part for part in parts if part is not None]
        yield shared.difference(*outdated) if outdated else shared
        return
    rarest, *others = common
    for segment in reader.segments(rarest, start) if shared is None else segments_of(shared, start):
        found = reader.segment(rarest, segment)
        if found is not None and shared is not None:
            found = shared & found
        if not found:
            continue
        for part in _split(found, first, head) if shared is None and (others or hidden is not None) else (found,):
            for posting in others:
                other = reader.segment(posting, segment)
                part = part & other if other is not None else BitMap()
                if not part:
                    break
            if part and hidden is not None and (covered := hidden.bitmap(segment)) is not None:
                part = part - covered
            if part:
                yield part


def _split(docids: BitMap, first: int, head: int) -> Iterator[BitMap]:
    if len(docids) > head > 0:
        start = docids.rank(first - 1) if first else 0
        part = docids[start : start + head]
        yield part
        docids = docids - part
    yield docids


def matching(
    reader: PostingReader, postings: Sequence[PostingList], after: int, hidden: HiddenDocids | None = None
) -> Iterator[int]:
    """Return the visible docids common to all posting lists and greater than `after`, ascending."""
    first = max(after + 1, 0)
    parts = _shared(reader, postings, first, hidden, _HEAD)
    return chain.from_iterable(found.iter_equal_or_larger(first) for found in parts)


def count(reader: PostingReader, postings: Sequence[PostingList], hidden: HiddenDocids | None = None) -> int:
    """Return the number of visible docids common to all posting lists."""
    if len(postings) > 1:
        return sum(map(len, _shared(reader, postings, 0, hidden)))
    (posting,) = postings
    if hidden is None:
        return posting.records
    total, whole = posting.records, reader.whole(posting)
    for segment in hidden.segments():
        found, covered = reader.segment(posting, segment) if whole is None else whole, hidden.bitmap(segment)
        if found is not None and covered is not None:
            total -= found.intersection_cardinality(covered)
    return total
