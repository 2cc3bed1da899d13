"""Reader of one collection: its base file merged with the layers of changes above it."""

from __future__ import annotations

import heapq
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple
from zlib import crc32

from cachetools import LRUCache

from ..._utils.log_once import LogOnce
from ...errors import StoreError
from ..checksum import DamagedData, record_seed
from ..collection import Collection, Dialect
from ..index.matching import HiddenDocids, count, matching
from ..index.postings import PostingList
from .layer_reader import Layer

__all__ = ["CollectionReader", "FoundRow"]

logger = logging.getLogger("profile_enrich.store")

_PAYLOAD: dict[Dialect, str] = {
    "census": "SELECT docid, census, census_checksum FROM record WHERE key = ?",
    "amperity": "SELECT docid, amperity, amperity_checksum FROM record WHERE key = ?",
}
_NEXT: dict[Dialect, str] = {
    "census": "SELECT docid, key, census, census_checksum FROM record WHERE docid > ? ORDER BY docid LIMIT ?",
    "amperity": "SELECT docid, key, amperity, amperity_checksum FROM record WHERE docid > ? ORDER BY docid LIMIT ?",
}
_THESE: dict[Dialect, str] = {
    "census": "SELECT docid, r.key, census, census_checksum FROM json_each(?) CROSS JOIN record r ON docid = value",
    "amperity": "SELECT docid, r.key, amperity, amperity_checksum FROM json_each(?) CROSS JOIN record r"
    " ON docid = value",
}

_MANY = "SELECT docid, r.key, census, census_checksum FROM json_each(?) CROSS JOIN record r ON r.key = value"

PageRow = tuple[int, str, bytes]
_StoredRow = tuple[int, str, bytes | None, int]

# A damaged row may hold values of other types, and a message of SQLite that quotes it may not be text.
_DAMAGE = (sqlite3.Error, DamagedData, TypeError, ValueError, AttributeError, OverflowError)


class FoundRow(NamedTuple):
    """The stored row of a key.

    Attributes:
        docid: its number, which it keeps until it is deleted.
        census: its Census payload; `None` if it was deleted.
        amperity: its Amperity payload, if the collection has that view.
    """

    docid: int
    census: bytes | None
    amperity: bytes | None


class CollectionReader:
    """Read one collection, in one thread.

    A docid in a newer layer hides the same docid in older layers. Every read verifies a checksum, so a damaged record
    is an error, never another record. What is not found is not there only if the files are intact.

    Args:
        layers: the data files: the base, then the layers above it, oldest first. The reader does not close them.
        collection: the collection in these files.

    Raises:
        StoreError: a data file is damaged.
    """

    def __init__(self, layers: Sequence[Layer], collection: Collection) -> None:
        self._collection = collection
        self._layers = list(reversed(layers))  # newest first
        self._base = self._layers[-1]
        self._executes = [layer.execute for layer in self._layers]
        self._totals: LRUCache[frozenset[tuple[str, str]], int] = LRUCache(1024)  # the files never change
        failed: Exception
        try:
            above = [(layer.postings, live) for layer in self._layers[:-1] if (live := layer.postings.live())]
            self._hidden = [HiddenDocids(above[:rank]) if rank else None for rank in range(len(self._layers))]
            return
        except _DAMAGE as error:
            failed = error
        raise self._failure(failed)

    def payload(self, key: str, dialect: Dialect) -> bytes | None:
        """Return the payload of the record with this key."""
        failed: Exception
        try:
            sql = _PAYLOAD[dialect]
            for hidden, execute in zip(self._hidden, self._executes, strict=True):
                row: tuple[int, bytes | None, int] | None = execute(sql, (key,)).fetchone()
                if row is not None:
                    docid, payload, checksum = row
                    if crc32(payload or b"", record_seed(docid, key)) != checksum or _is_hidden(hidden, docid):
                        raise DamagedData
                    return payload
            self._require_complete()
            return None
        except UnicodeEncodeError:  # a lone surrogate, which no stored key contains
            return None
        except _DAMAGE as error:
            failed = error
        raise self._failure(failed)

    def payloads(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the Census payloads of the keys that have a record."""
        failed: Exception
        found: dict[str, bytes] = {}
        rest = sorted(key for key in keys if key.isascii() or not any("\ud800" <= each <= "\udfff" for each in key))
        try:
            for hidden, execute in zip(self._hidden, self._executes, strict=True):
                # In the order of the index, which is faster to read.
                rows = execute(_MANY, (json.dumps(rest, ensure_ascii=False),)).fetchall()
                found.update((key, payload) for _, key, payload in _checked(rows))
                if hidden is not None and any(row[0] in hidden for row in rows):
                    raise DamagedData
                seen = {row[1] for row in rows}
                rest = [key for key in rest if key not in seen]
            if rest:
                self._require_complete()
            return found
        except _DAMAGE as error:
            failed = error
        raise self._failure(failed)

    def find(self, key: str) -> FoundRow | None:
        """Return the stored row of this key, including a tombstone."""
        for execute in self._executes:
            row = execute("SELECT docid, census, amperity FROM record WHERE key = ?", (key,)).fetchone()
            if row is not None:
                return FoundRow(*row)
        return None

    def docid(self, key: str) -> int | None:
        """Return the docid of the record with this key, including a tombstone's."""
        row: tuple[int] | None
        for execute in self._executes:
            row = execute("SELECT docid FROM record WHERE key = ?", (key,)).fetchone()
            if row is not None:
                return row[0]
        return None

    def page(self, filters: Mapping[str, str], *, after: int, limit: int, dialect: Dialect) -> list[PageRow]:
        """Return the next records after this docid that match all filters: docid, key, payload."""
        failed: Exception
        try:
            if filters:
                found = self._fetch(self._matching(filters, after, limit), dialect)
            elif len(self._layers) == 1:
                found = _checked(self._base.execute(_NEXT[dialect], (after, limit)))
            else:
                found = list(islice(self._scan(after, dialect), limit))
            asked = filters.get(self._collection.key)
            if asked is not None and any(key != asked for _, key, _ in found):  # the index points to another record
                raise DamagedData
            self._require_complete()
            return found
        except UnicodeEncodeError:
            return []
        except _DAMAGE as error:
            failed = error
        raise self._failure(failed)

    def count(self, filters: Mapping[str, str]) -> int:
        """Return how many records match all filters."""
        if not filters:
            return self._collection.rows
        failed: Exception
        try:
            wanted = frozenset(filters.items())
            total = self._totals.get(wanted)
            if total is None:
                total = sum(
                    count(self._layers[rank].postings, postings, self._hidden[rank])
                    for rank, postings in self._postings(filters)
                )
            self._require_complete()
            self._totals[wanted] = total
            return total
        except UnicodeEncodeError:
            return 0
        except _DAMAGE as error:
            failed = error
        raise self._failure(failed)

    def walk(self, after: int = 0) -> Iterator[tuple[int, str]]:
        """Yield docid and key of every record after this docid, ascending."""
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
        """Return key and presence of each record changed after a generation; `None` if there are too many."""
        failed: Exception
        try:
            seen: dict[str, bool] = {}
            for layer in self._layers[:-1]:
                for key, there in layer.execute(
                    "SELECT key, census NOT NULL FROM record WHERE generation > ? LIMIT ?", (generation, limit + 1)
                ):
                    seen.setdefault(key, bool(there))
                if len(seen) > limit:
                    return None
            self._require_complete()
            return list(seen.items())
        except _DAMAGE as error:
            failed = error
        raise self._failure(failed)

    def _scan(self, after: int, dialect: Dialect) -> Iterator[PageRow]:
        streams = [_ranked(layer.execute(_NEXT[dialect], (after, -1)), rank) for rank, layer in enumerate(self._layers)]
        last = after
        for docid, _, *row in heapq.merge(*streams):
            if docid != last:  # the newest comes first
                last = docid
                yield from _checked([(docid, *row)])

    def _postings(self, filters: Mapping[str, str]) -> Iterator[tuple[int, list[PostingList]]]:
        for rank, layer in enumerate(self._layers):
            found = layer.find_postings(filters, base=layer is self._base)
            if found is not None:
                yield rank, found

    def _matching(self, filters: Mapping[str, str], after: int, limit: int) -> dict[int, list[int]]:
        """Return the first matching docids by layer."""
        found = {
            rank: list(islice(matching(self._layers[rank].postings, postings, after, self._hidden[rank]), limit))
            for rank, postings in self._postings(filters)
        }
        if len(found) > 1:
            first = sorted((docid, rank) for rank, docids in found.items() for docid in docids)[:limit]
            found = {rank: [docid for docid, other in first if other == rank] for rank in found}
        return found

    def _fetch(self, found: Mapping[int, list[int]], dialect: Dialect) -> list[PageRow]:
        rows: list[PageRow] = []
        for rank, docids in found.items():
            wanted = _checked(self._layers[rank].execute(_THESE[dialect], (str(docids),)))
            if len(wanted) < len(docids):  # a posting list names a record that does not exist
                raise DamagedData
            rows += wanted
        if len(found) > 1:
            rows.sort()
        return rows

    def _require_complete(self) -> None:
        for layer in self._layers:
            if not layer.complete():
                raise DamagedData("written to since it was built, or its digest does not match")

    def _failure(self, error: Exception) -> StoreError:
        """Log that a file is damaged, once, and return the error for the caller."""
        files = ", ".join(str(layer.file) for layer in reversed(self._layers))
        checked = str(error) if isinstance(error, DamagedData) else ""
        what = getattr(error, "sqlite_errorname", checked or "a checksum does not match")
        if _REPORTED.first(files, what):
            logger.error(
                "a data file of the collection %r is damaged (%s): %s; reads of the damaged part fail;"
                " restore the file, or build the collection again",
                self._collection.name,
                what,
                files,
            )
        return StoreError(f"a data file is damaged ({what}): {files}; restore it, or build the collection again")


_REPORTED = LogOnce()


def _is_hidden(hidden: HiddenDocids | None, docid: int) -> bool:
    """Return whether a newer layer has this record, though its index did not find it."""
    return hidden is not None and docid in hidden


def _checked(rows: Iterable[_StoredRow]) -> list[PageRow]:
    """Return the records without tombstones, after verifying their checksums.

    Raises:
        DamagedData: a payload does not match.
    """
    found: list[PageRow] = []
    for docid, key, payload, checksum in rows:
        if crc32(payload or b"", crc32(key.encode(), docid & 0xFFFFFFFF)) != checksum:  # `record_seed`, inline
            raise DamagedData
        if payload is not None:
            found.append((docid, key, payload))
    return found


def _ranked(rows: Iterator[tuple[Any, ...]], rank: int) -> Iterator[tuple[Any, ...]]:
    for docid, *rest in rows:
        yield docid, rank, *rest
