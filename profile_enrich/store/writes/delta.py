"""Changes to one collection: collected, then written as a layer above its files.

Layers that are small compared with a new one are merged into it, so that there are few layers and each change is
rewritten only a few times. Once the layers reach a quarter of the base, everything below the newest layer is merged
into a new base.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

from ...errors import StoreError
from ..checksum import record_checksum
from ..collection import Collection
from ..files.collection_reader import CollectionReader
from ..files.collection_writer import CollectionWriter
from ..files.integrity import require_intact
from ..files.layer_reader import Layer
from ..files.manifest import CollectionFiles, DataFile, Manifest
from ..files.row_encoder import EncodedRow, stored_values
from ..index.bitmaps import BitMap64

__all__ = ["Delta", "missing_file"]

Outcome = Literal["new", "changed", "unchanged", "repeated"]

_SMALL = 256
"""The size up to which a layer is always merged into the next one, in records."""
_GROWTH = 4
_MOST_LAYERS = 6
_MERGE_SHARE = 0.25
_MERGE_FROM = 20_000

_Change = tuple[int, int, str, int | None, bytes | None, bytes | None, int | None, int | None]
"""Docid, rank of its layer (0: the newest), key, generation, payloads and their checksums, if any."""


class Delta:
    """Changes to one collection.

    Args:
        path: the store's directory.
        manifest: the current manifest.
        collection: the collection.

    Attributes:
        inserted: new records; known after `write`, like the next two.
        updated: changed records.
        deleted: deleted records.
        merged: whether the base was rewritten.

    Raises:
        FileGone: a data file is missing.
        StoreError: a data file cannot be opened.
    """

    def __init__(self, path: Path, manifest: Manifest, collection: Collection) -> None:
        self._path = path
        self._manifest = manifest
        self._collection = collection
        self._parts = manifest.parts[collection.id]
        self._next_docid = self._parts.next_docid
        self._new: dict[str, int] = {}
        self._seen = BitMap64()
        self._layers: list[Layer] = []
        self._staged = sqlite3.connect("", isolation_level=None)  # spills to disk, deleted when closed
        try:
            for file in self._parts.files:
                self._layers.append(Layer(path / file.name, collection))
            self._staged.execute(
                "CREATE TABLE change (docid INTEGER PRIMARY KEY, key TEXT, was, census BLOB, amperity BLOB)"
            )
            self._staged.execute("BEGIN")
        except BaseException:
            self.close()
            raise
        self._old = CollectionReader(self._layers, collection)
        self.inserted = self.updated = self.deleted = 0
        self.merged = False

    def put(self, row: EncodedRow) -> Outcome:
        """Add a record and return how it differs from the stored one. A later one replaces an earlier one."""
        found = self._old.find(row.key)
        docid = self._number(row.key) if found is None else found.docid
        there = found is not None and found.census is not None
        repeated = docid in self._seen
        self._seen.add(docid)
        if there and found is not None and (found.census, found.amperity) == (row.census, row.amperity):
            if repeated:
                self._staged.execute("DELETE FROM change WHERE docid = ?", (docid,))
            return "repeated" if repeated else "unchanged"
        self._staged.execute(
            "INSERT OR REPLACE INTO change VALUES (?, ?, ?, ?, ?)", (docid, row.key, there, row.census, row.amperity)
        )
        return "repeated" if repeated else "changed" if there else "new"

    def _number(self, key: str) -> int:
        docid = self._new.get(key)
        if docid is None:
            docid = self._new[key] = self._next_docid
            self._next_docid += 1
        return docid

    def delete(self, key: str) -> bool:
        """Delete the record with this key; return true if it existed before these changes."""
        found = self._old.find(key)
        docid = self._new.get(key) if found is None else found.docid
        if docid is None:
            return False
        self._seen.add(docid)
        if found is None or found.census is None:
            self._staged.execute("DELETE FROM change WHERE docid = ?", (docid,))
            return False
        self._delete(docid, key)
        return True

    def keep(self, key: str) -> None:
        """Mark a record as present in the source, even if its row was rejected."""
        found = self._old.docid(key)
        if found is not None:
            self._seen.add(found)

    def delete_others(self) -> int:
        """Delete all records that were not in the source; return how many."""
        count = 0
        for docid, key in self._old.walk():
            if docid not in self._seen:
                self._delete(docid, key)
                count += 1
        return count

    def _delete(self, docid: int, key: str) -> None:
        self._staged.execute("INSERT OR REPLACE INTO change VALUES (?, ?, 1, NULL, NULL)", (docid, key))

    def write(
        self, generation: int, collection: Collection, *, merge: bool
    ) -> tuple[CollectionFiles, Collection] | None:
        """Write the changes.

        Args:
            generation: the generation of the changes.
            collection: the new version of the collection, without the counts.
            merge: whether the base may be rewritten, which takes long.

        Returns:
            The new files and the collection; `None` if nothing changed.
        """
        self.inserted, self.updated, self.deleted = self._staged.execute(
            "SELECT count(*) FILTER (WHERE NOT was), count(*) FILTER (WHERE was AND census NOT NULL),"
            " count(*) FILTER (WHERE was AND census IS NULL) FROM change"
        ).fetchone()
        staged = self.inserted + self.updated + self.deleted
        if not staged:
            return None
        files, since = list(self._parts.files), self._parts.since
        layered = sum(file.rows for file in files[1:])
        if merge and len(files) > 1 and layered + staged > max(_MERGE_FROM, files[0].rows * _MERGE_SHARE):
            self._require_intact(files)
            # The newest changes stay in a separate layer, where the change feed finds them.
            files, since = [self._write_base(generation, collection)], self._manifest.generation
            absorbed: Sequence[Layer] = ()
            self.merged = True
        else:
            absorbed = self._small_ones(files, staged)
            files, merged = files[: len(files) - len(absorbed)], files[len(files) - len(absorbed) :]
            self._require_intact(merged)
        files.append(self._write_layer(generation, collection, absorbed))
        rows = self._collection.rows + self.inserted - self.deleted
        collection = replace(collection, rows=rows, generation=generation, updated_at=datetime.now(UTC))
        return CollectionFiles(tuple(files), self._next_docid, since), collection

    def _require_intact(self, files: Sequence[DataFile]) -> None:
        for file in files:
            require_intact(self._path / file.name, file.sha256)

    def _small_ones(self, files: Sequence[DataFile], size: int) -> Sequence[Layer]:
        """Return the newest layers that are small compared with the new one."""
        first = len(files)
        while first > 1 and (files[first - 1].rows <= max(_SMALL, _GROWTH * size) or first > _MOST_LAYERS):
            first -= 1
            size += files[first].rows
        return self._layers[first:]

    def _write_layer(self, generation: int, collection: Collection, absorbed: Sequence[Layer]) -> DataFile:
        name = f"{collection.id}-{generation:06}.db"
        newest = self._staged.execute(
            "SELECT docid, 0, key, ?, census, amperity, NULL, NULL FROM change ORDER BY docid", (generation,)
        )
        with CollectionWriter(self._path / name, len(collection.filterable), layer=True) as writer:
            for docid, key, changed_in, census, amperity in _united([newest, *_streams(absorbed, 1)]):
                if census is None:
                    writer.write_tombstone(docid, key, changed_in or generation)
                else:
                    values = stored_values(census, collection.filterable)
                    writer.add(docid, EncodedRow(key, census, amperity, values), changed_in or generation)
            return writer.finish().file

    def _write_base(self, generation: int, collection: Collection) -> DataFile:
        name = f"{collection.id}-{generation:06}-base.db"
        with CollectionWriter(self._path / name, len(collection.filterable)) as writer:
            for docid, key, _, census, amperity in _united(_streams(self._layers, 0)):
                if census is not None:
                    writer.add(docid, EncodedRow(key, census, amperity, stored_values(census, collection.filterable)))
            return writer.finish().file

    def close(self) -> None:
        """Close all files."""
        self._staged.close()
        for layer in self._layers:
            layer.close()

    def __enter__(self) -> Delta:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _streams(layers: Sequence[Layer], first: int) -> list[Iterator[_Change]]:
    """Return the rows of the layers, newest first."""
    return [
        layer.execute(
            "SELECT docid, ?, key, generation, census, amperity, census_checksum, amperity_checksum FROM record"
            " ORDER BY docid",
            (rank,),
        )
        for rank, layer in enumerate(reversed(layers), first)
    ]


def _united(
    streams: Iterable[Iterator[_Change]],
) -> Iterator[tuple[int, str, int | None, bytes | None, bytes | None]]:
    """Yield the newest docid, key, generation and payloads of each docid.

    Raises:
        StoreError: a payload does not match its checksum, so it must not be copied.
    """
    last = -1
    for docid, _, key, generation, census, amperity, *checksums in heapq.merge(*streams):
        if docid != last:
            last = docid
            found = [record_checksum(docid, key, census), record_checksum(docid, key, amperity)]
            if checksums not in (found, [None, None]):
                raise StoreError(
                    "a record of the store is damaged (its checksum does not match); build its collection again"
                )
            yield docid, key, generation, census, amperity


def missing_file(path: Path) -> str:
    """Return the message about a data file that is missing."""
    return f"the store in {path} is damaged: a data file is missing; restore it, or build its collection again"
