"""Local store: read, page through and change a store on disk."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._utils.validation import check_int
from ..errors import StoreError
from .collection import Collection, CollectionChanges, Dialect
from .files.collection_reader import CollectionReader
from .files.integrity import FileIntegrity
from .files.layer_reader import FileGone, Layer
from .files.manifest import CollectionFiles, Manifest, read_manifest, signature
from .index.postings import CACHE_BYTES, PostingCache
from .profile_store import WRITE_WAIT, ProfileStore, check_filters
from .writes.single_records import delete_record, put_record

__all__ = ["LocalStore"]


class _Snapshot:
    """One generation: its manifest, and the state of its data files, without data."""

    def __init__(self, path: Path, manifest: Manifest, before: _Snapshot | None = None) -> None:
        self.manifest = manifest
        known: dict[str, FileIntegrity] = {}
        if (
            before is not None and before.manifest.secret == manifest.secret
        ):  # otherwise this is another store, with files of the same names
            known = before.files
        self.files: dict[str, FileIntegrity] = {
            file.name: known.get(file.name) or FileIntegrity(path / file.name, file.sha256) for file in manifest.files()
        }
        self.by_id = manifest.collections
        self.by_index_id = {item.index_id: item for item in manifest.collections.values()}
        self.by_name = {item.name: item for item in manifest.collections.values()}

    def files_in_common(self, before: _Snapshot) -> set[str]:
        """Return the names of the data files that an earlier generation has, too."""
        return {name for name, state in self.files.items() if before.files.get(name) is state}


class _PerThread(threading.local):
    """The connections of one thread, so that threads never wait for each other's."""

    def __init__(self) -> None:
        self.snapshot: _Snapshot | None = None
        self.readers: dict[int, CollectionReader] = {}
        self.layers: dict[str, Layer] = {}
        self.parts: dict[int, CollectionFiles] = {}


class LocalStore(ProfileStore):
    """A store that `build_store` wrote. It is thread-safe and fork-safe; lookups take microseconds.

    Each thread opens the files read-only. Every read verifies a checksum. A new generation is picked up by the first
    call after `check_every` seconds. If a data file is written to while it is open, what is not found in it is an error
    until the file is verified, which happens in a thread at that check; `verify` finds other damage.

    Args:
        path: the store's directory.
        check_every: seconds between checks for a newer generation. Default 1.
        index_cache: the size of the cache of decoded filter bitmaps, in bytes. Default 256 MiB.
        timer: the monotonic clock, in seconds; injectable for tests.

    Raises:
        StoreError: the store does not exist, or has another format version.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        check_every: float = 1.0,
        index_cache: int = CACHE_BYTES,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(path)
        self._check_every = check_every
        self._cache = PostingCache(check_int("index_cache", index_cache, least=0))
        self._timer = timer
        self._snapshot = _Snapshot(self._path, read_manifest(self._path))
        self._verifying: threading.Thread | None = None
        self._next_check = timer() + check_every
        self._local = _PerThread()
        self._open: weakref.WeakSet[Layer] = weakref.WeakSet()
        _STORES.add(self)

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self._path

    @property
    def namespace(self) -> str:
        """`"store:"` and the absolute path."""
        return f"store:{self._path.absolute()}"

    @property
    def blocking(self) -> bool:
        """Always false: a lookup reads local files and never waits for a network."""
        return False

    @property
    def check_every(self) -> float:
        """Seconds between checks for a newer generation."""
        return self._check_every

    @property
    def generation(self) -> int:
        """The generation being served; each build makes a new one."""
        return self._current().manifest.generation

    @property
    def secret(self) -> bytes:
        """The key that signs cursors, and from which the embedded server derives the key of its tokens."""
        return self._current().manifest.secret

    def collections(self) -> tuple[Collection, ...]:
        """All collections, by id."""
        return tuple(item for _, item in sorted(self._current().by_id.items()))

    def find(self, ref: str | int) -> Collection | None:
        """Return the collection with this name, index id (`"idx-…"`) or entity id (an integer), or `None`."""
        snapshot = self._current()
        if isinstance(ref, int):
            return snapshot.by_id.get(ref)
        return snapshot.by_name.get(ref) or snapshot.by_index_id.get(ref)

    def find_index(self, index_id: str) -> Collection | None:
        """Return the collection with this index id, or `None`."""
        return self._current().by_index_id.get(index_id)

    def get_many(self, collection: str | int | Collection, record_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the attributes of the existing records, by key.

        Raises:
            StoreError: the collection does not exist, or one of the records cannot be read.
        """
        payloads = self._reader(collection)[1].payloads(record_ids)
        decoded = json.loads((b"[%b]" % b",".join(payloads.values())).decode())
        return {key: whole["data"] for key, whole in zip(payloads, decoded, strict=True)}

    def get_payload(
        self, collection: str | int | Collection, record_id: str, dialect: Dialect = "census"
    ) -> bytes | None:
        """See `ProfileStore.get_payload`."""
        found, reader = self._reader(collection)  # read once, because every lookup comes here
        if dialect == "amperity" and found.index_fields is None:
            return None
        return reader.payload(record_id, dialect)

    def changes_since(
        self, collection: str | int | Collection, generation: int, *, limit: int = 100_000
    ) -> CollectionChanges | None:
        """Return the keys of the records written or deleted after a generation.

        Args:
            collection: the collection, by name or id.
            generation: the last generation that was processed: an earlier `Collection.generation` or
                `LocalStore.generation`.
            limit: the largest number of keys.

        Returns:
            The keys, each once, and the generation up to which they are complete. `None` means that anything may have
            changed: there are more than `limit` keys, the collection was rebuilt, or the generation is too old.

        Raises:
            StoreError: the collection does not exist or cannot be read.
        """
        found, reader = self._reader(collection)
        if generation < self._local.parts[found.id].since:
            return None
        changed = reader.changes(generation, limit)
        if changed is None:
            return None
        written = tuple(key for key, there in changed if there)
        return CollectionChanges(found.generation, written, tuple(key for key, there in changed if not there))

    def put_record(
        self, collection: str | int | Collection, record_id: str, record: Mapping[str, Any], *, wait: float = WRITE_WAIT
    ) -> bool:
        """Insert or replace one record; see `profile_enrich.store.put_record`. Return true if it is new."""
        new = put_record(self._path, self.collection(_ref(collection)).name, record_id, record, wait=wait)
        self.refresh()
        return new

    def delete_record(self, collection: str | int | Collection, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
        """Delete one record; see `profile_enrich.store.delete_record`. Return true if it existed."""
        there = delete_record(self._path, self.collection(_ref(collection)).name, record_id, wait=wait)
        self.refresh()
        if not there:
            self.get_payload(collection, record_id)  # an error if damage may have hidden the record
        return there

    def refresh(self) -> bool:
        """Check for a newer generation now; return true if there was one.

        Raises:
            StoreError: the store is missing or damaged.
        """
        self._next_check = self._timer() + self._check_every
        before = self._snapshot
        if signature(self._path) == before.manifest.signature:
            if any(state.changed() for state in before.files.values()) and self._verifying is None:
                self._verifying = threading.Thread(target=self._verify_changed, daemon=True)
                self._verifying.start()
            return False
        self._snapshot = _Snapshot(self._path, read_manifest(self._path), before)
        self._cache.forget(self._snapshot.files_in_common(before))
        return True

    def verify(self, rate: float = 0, stop: threading.Event | None = None, *, changed_only: bool = False) -> bool:
        """Compare the data files with the digests of the manifest; return whether all are intact.

        Damage is logged. From then on, everything that is not found in a damaged file is an error, until the file is
        restored; what is found passes a checksum.

        Args:
            rate: bytes per second; 0, the default, for no limit.
            stop: ends the verification.
            changed_only: verify only files that were written to since they were opened or verified.
        """
        snapshot = self._snapshot
        for name, state in snapshot.files.items():
            if (state.changed() or not changed_only) and state.verify(rate=rate, stop=stop) and state.intact:
                # Nothing that was read meanwhile may stay in a cache.
                self._cache.forget(set(snapshot.files) - {name})
                self._snapshot = _Snapshot(self._path, self._snapshot.manifest, self._snapshot)
        return all(state.intact for state in snapshot.files.values())

    def _verify_changed(self) -> None:
        self.verify(changed_only=True)
        self._verifying = None

    def close(self) -> None:
        """Close all connections; the next use opens them again. No other thread may use the store meanwhile."""
        for layer in list(self._open):
            layer.close()
        self._open.clear()
        self._local = _PerThread()

    def __repr__(self) -> str:
        return f"<LocalStore {self._path}, {len(self._snapshot.by_id)} collections>"

    @property
    def _description(self) -> str:
        return f"the store in {self._path}"

    def _payload(self, known: Collection, record_id: str, dialect: Dialect) -> bytes | None:
        return self._reader(known)[1].payload(record_id, dialect)

    def _rows(
        self,
        known: Collection,
        filters: Mapping[str, str],
        after: int | None,
        limit: int,
        *,
        dialect: Dialect,
        with_total: bool,
    ) -> tuple[Sequence[tuple[int, str, bytes]], int | None]:
        found, reader = self._reader(known)
        if found is not known:  # another generation has come meanwhile
            check_filters(found, filters)
        rows = reader.page(filters, after=after or 0, limit=limit, dialect=dialect)
        return rows, reader.count(filters) if with_total else None

    def _current(self) -> _Snapshot:
        if self._timer() >= self._next_check:
            # If the store is missing or damaged now, the open files are still served.
            with contextlib.suppress(StoreError):
                self.refresh()
        return self._snapshot

    def _reader(self, ref: str | int | Collection) -> tuple[Collection, CollectionReader]:
        """Return the current collection and this thread's reader of it."""
        for _ in range(_ATTEMPTS):
            snapshot, local = self._current(), self._local
            if local.snapshot is not snapshot:
                self._close_old(local, snapshot)
            found = self.collection(_ref(ref))
            reader = local.readers.get(found.id)
            if reader is not None:
                return found, reader
            parts = snapshot.manifest.parts[found.id]
            # A missing file: a build replaced it after this snapshot was taken.
            with contextlib.suppress(FileGone):
                reader = CollectionReader(
                    [self._layer(local, snapshot, file.name, found) for file in parts.files], found
                )
                local.readers[found.id] = reader
                return found, reader
            self.refresh()
        raise StoreError(
            f"the store in {self._path} is damaged: a data file is missing; build it again with build_store() or"
            " `profile-enrich index build`"
        )

    def _layer(self, local: _PerThread, snapshot: _Snapshot, name: str, collection: Collection) -> Layer:
        layer = local.layers.get(name)
        if layer is None:
            layer = local.layers[name] = Layer(self._path / name, collection, self._cache, snapshot.files[name])
            self._open.add(layer)
        return layer

    @staticmethod
    def _close_old(local: _PerThread, snapshot: _Snapshot) -> None:
        """Close the files that the new generation does not have. The others stay open, with warm caches."""
        local.readers = {}
        kept: set[str] = set() if local.snapshot is None else snapshot.files_in_common(local.snapshot)
        for name in [name for name, layer in local.layers.items() if name not in kept or layer.outdated()]:
            local.layers.pop(name).close()
        local.snapshot, local.parts = snapshot, snapshot.manifest.parts

    def _after_fork(self) -> None:
        # SQLite connections must not cross a fork: the child opens its own and never closes the parent's.
        self._inherited = self._local
        self._local = _PerThread()
        self._open = weakref.WeakSet()
        self._verifying = None


_ATTEMPTS = 10  # a build may swap while this reader opens its files
_STORES: weakref.WeakSet[LocalStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_STORES):
        store._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _ref(ref: str | int | Collection) -> str | int:
    return ref.id if isinstance(ref, Collection) else ref
