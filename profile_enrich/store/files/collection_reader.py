"""One collection, opened for reading: its base and the layers of changes above it, seen as one."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ..index.posting_lists import Mask, Term, count, matching
from ..model import Collection, Dialect
from .layer import Layer

__all__ = ["CollectionReader", "FoundRow"]

_PAYLOAD: dict[Dialect, str] = {
    "census": "SELECT census FROM record WHERE key = ?",
    "amperity": "SELECT amperity FROM record WHERE key = ?",
}
_NEXT: dict[Dialect, str] = {
    "census": "SELECT docid, key, census FROM record WHERE docid > ? ORDER BY docid LIMIT ?",
    "amperity": "SELECT docid, key, amperity FROM record WHERE docid > ? ORDER BY docid LIMIT ?",
}
_THESE: dict[Dialect, str] = {
    "census": "SELECT docid, r.key, census FROM json_each(?) CROSS JOIN record r ON docid = value",
    "amperity": "SELECT docid, r.key, amperity FROM json_each(?) CROSS JOIN record r ON docid = value",
}

PageRow = tuple[int, str, bytes]


class FoundRow(NamedTuple):
    """What a collection holds under a key.

    Attributes:
        docid: its number, which it keeps for as long as it is there.
        census: its payload; `None` when it was deleted.
        amperity: its payload, where there is that view.
    """

    docid: int
    census: bytes | None
    amperity: bytes | None


class CollectionReader:
    """Reads one collection, for one thread.

    What a newer layer says of a docid hides what is below. Without layers this costs nothing.

    Args:
        layers: the data files: the base, then the layers above it, oldest first. They are not closed with it.
        collection: what is in them.
    """

    def __init__(self, layers: Sequence[Layer], collection: Collection) -> None:
        self._rows = collection.rows
        self._layers = list(reversed(layers))  # newest first
        self._base = self._layers[-1]
        self._executes = [layer.execute for layer in self._layers]
        touched = [layer.live() for layer in self._layers[:-1]]
        self._masks = [Mask(touched[:rank]) if rank else None for rank in range(len(self._layers))]

    def payload(self, key: str, dialect: Dialect) -> bytes | None:
        """The payload of the record with this key."""
        failed: sqlite3.Error
        try:
            sql = _PAYLOAD[dialect]
            row: tuple[bytes | None] | None
            for execute in self._executes:
                row = execute(sql, (key,)).fetchone()
                if row is not None:
                    return row[0]
            return None
        except UnicodeEncodeError:  # a lone surrogate: no stored key has one
            return None
        except sqlite3.Error as error:
            failed = error
        raise self._base.failure(failed)

    def find(self, key: str) -> FoundRow | None:
        """What is stored under this key, also the mark of a deleted record."""
        for execute in self._executes:
            row = execute("SELECT docid, census, amperity FROM record WHERE key = ?", (key,)).fetchone()
            if row is not None:
                return FoundRow(*row)
        return None

    def docid(self, key: str) -> int | None:
        """The number of the record with this key, also of a deleted one of which the mark is still there."""
        row: tuple[int] | None
        for execute in self._executes:
            row = execute("SELECT docid FROM record WHERE key = ?", (key,)).fetchone()
            if row is not None:
                return row[0]
        return None

    def page(self, filters: Mapping[str, str], *, after: int, limit: int, dialect: Dialect) -> list[PageRow]:
        """The next records after this docid that match all filters: docid, key, payload."""
        failed: sqlite3.Error
        try:
            if not filters:
                if len(self._layers) == 1:
                    return self._base.execute(_NEXT[dialect], (after, limit)).fetchall()
                return list(islice(self._scan(after, dialect), limit))
            return self._fetch(list(islice(self._matching(filters, after), limit)), dialect)
        except UnicodeEncodeError:
            return []
        except sqlite3.Error as error:
            failed = error
        raise self._base.failure(failed)

    def count(self, filters: Mapping[str, str]) -> int:
        """How many records match all filters."""
        if not filters:
            return self._rows
        failed: sqlite3.Error
        try:
            return sum(count(terms, self._masks[rank]) for rank, terms in self._terms(filters))
        except UnicodeEncodeError:
            return 0
        except sqlite3.Error as error:
            failed = error
        raise self._base.failure(failed)

    def walk(self, after: int = 0) -> Iterator[tuple[int, str]]:
        """Docid and key of every record after this docid, ascending."""
        if len(self._layers) == 1:
            yield from ((docid, key) for docid, key, _ in self._base.keys(after))
            return
        streams = [_ranked(layer.keys(after), rank) for rank, layer in enumerate(self._layers)]
        last = after
        for docid, _, key, there in heapq.merge(*streams):
            if docid != last:
                last = docid
                if there:
                    yield docid, key

    def changes(self, generation: int, limit: int) -> list[tuple[str, bool]] | None:
        """Key and whether there is a record still, of what the layers changed after a generation; `None`: too many."""
        failed: sqlite3.Error
        try:
            seen: dict[str, bool] = {}
            for layer in self._layers[:-1]:
                for key, there in layer.execute(
                    "SELECT key, census NOT NULL FROM record WHERE gen > ? LIMIT ?", (generation, limit + 1)
                ):
                    seen.setdefault(key, bool(there))
                if len(seen) > limit:
                    return None
            return list(seen.items())
        except sqlite3.Error as error:
            failed = error
        raise self._base.failure(failed)

    def _scan(self, after: int, dialect: Dialect) -> Iterator[PageRow]:
        streams = [_ranked(layer.execute(_NEXT[dialect], (after, -1)), rank) for rank, layer in enumerate(self._layers)]
        last = after
        for docid, _, key, payload in heapq.merge(*streams):
            if docid != last:  # the newest comes first
                last = docid
                if payload is not None:
                    yield docid, key, payload

    def _terms(self, filters: Mapping[str, str]) -> Iterator[tuple[int, list[Term]]]:
        for rank, layer in enumerate(self._layers):
            terms = layer.terms(filters, base=layer is self._base)
            if terms is not None:
                yield rank, terms

    def _matching(self, filters: Mapping[str, str], after: int) -> Iterator[tuple[int, int]]:
        streams = [_tagged(matching(terms, after, self._masks[rank]), rank) for rank, terms in self._terms(filters)]
        return streams[0] if len(streams) == 1 else heapq.merge(*streams)

    def _fetch(self, found: list[tuple[int, int]], dialect: Dialect) -> list[PageRow]:
        wanted: dict[int, list[int]] = {}
        for docid, rank in found:
            wanted.setdefault(rank, []).append(docid)
        rows: list[PageRow] = []
        for rank, docids in wanted.items():
            rows += self._layers[rank].execute(_THESE[dialect], (json.dumps(docids),))
        if len(wanted) > 1:
            rows.sort()
        return rows


def _ranked(rows: Iterator[tuple[int, Any, Any]], rank: int) -> Iterator[tuple[int, int, Any, Any]]:
    for docid, one, other in rows:
        yield docid, rank, one, other


def _tagged(docids: Iterator[int], rank: int) -> Iterator[tuple[int, int]]:
    for docid in docids:
        yield docid, rank
