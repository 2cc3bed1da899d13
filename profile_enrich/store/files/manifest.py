"""Which files make up a store: one small manifest that is replaced atomically.

```text
profiles.store/
├── CURRENT                 the manifest (JSON): what is served
├── LOCK                    locked while a process writes
├── REFRESHING              locked while a process refreshes the store from its sources
├── REFRESHED               how the last refresh went (JSON)
├── SOURCES                 what the collections are built from (JSON)
├── 1-000004.db             entity 1 as of generation 4
├── 1-000007.db             what has changed of it until generation 7
└── 2-000003.db             entity 2 as of generation 3
```

A build writes new data files, syncs them, and then renames a new manifest over the old one: this rename is the swap. A
refresh does the same with a small file, which lies above the others as a layer.
Whatever kills the process before it leaves the old manifest and its files whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from ..._utils.files import private_opener, replace_private
from ...errors import StoreBusy, StoreError
from ..model import Collection, Column

__all__ = ["FORMAT", "CollectionFiles", "DataFile", "Manifest", "locked", "read_manifest", "write_manifest"]

FORMAT = 3
"""The version of the format; a store of another one is refused."""

MANIFEST = "CURRENT"


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file of a collection.

    Args:
        name: in the store's directory.
        rows: how many records and marks of deleted ones are in it.
    """

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class CollectionFiles:
    """What a collection is made of.

    Args:
        files: the base, then the layers above it, oldest first.
        next_docid: the number of the next new record; numbers are never used twice.
        since: the generation after which the layers know every change.
    """

    files: tuple[DataFile, ...]
    next_docid: int
    since: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store consists of.

    Args:
        generation: counts the builds.
        next_id: the entity id of the next new collection; ids are never used twice.
        secret: signs cursors (and the embedded server's tokens).
        parts: what each collection is made of, by entity id.
        collections: all of them, by entity id.
        signature: tells this manifest from a later one at the cost of a `stat`.
    """

    generation: int
    next_id: int
    secret: bytes = field(repr=False)
    parts: dict[int, CollectionFiles]
    collections: dict[int, Collection]
    signature: tuple[int, int, int] = (0, 0, 0)


def new_manifest() -> Manifest:
    """The manifest of an empty store."""
    return Manifest(generation=0, next_id=1, secret=secrets.token_bytes(32), parts={}, collections={})


def signature(path: Path) -> tuple[int, int, int] | None:
    """What changes with every new manifest; `None` when there is none."""
    try:
        facts = (path / MANIFEST).stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino, facts.st_size


def read_manifest(path: Path) -> Manifest:
    """The manifest of the store in this directory.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    # Before the content: if it is replaced in between, the next check sees a change and reads once more.
    seen = signature(path)
    problem = ""
    content: Any = None
    try:
        content = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError:
        problem = f"there is no store in {path}; build one with build_store() or `profile-enrich index build`"
    except OSError as error:
        problem = f"the store in {path} cannot be read: {error.strerror}"
    except ValueError:
        problem = f"the store in {path} is damaged: its manifest is not JSON; restore {MANIFEST}"
    if problem:
        raise StoreError(problem)
    found = cast("dict[str, Any]", content).get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise StoreError(
            f"the store in {path} has format {found}, this version reads format {FORMAT}; build it again in"
            " a new directory"
        )
    try:
        facts = cast("dict[str, Any]", content)
        if facts.pop("checksum") == _checksum(facts):
            return _from_json(facts, seen or (0, 0, 0))
        problem = f"the store in {path} is damaged: the checksum of its manifest does not match; restore {MANIFEST}"
    except (KeyError, TypeError, ValueError):
        problem = f"the store in {path} is damaged: its manifest lacks something; restore {MANIFEST}"
    raise StoreError(problem)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically: the swap to a new generation."""
    replace_private(path / MANIFEST, manifest_bytes(_to_json(manifest)))


def manifest_bytes(content: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest with its checksum."""
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1).encode()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path, wait: float = 0) -> Generator[None]:
    """Hold the store's lock, which the system frees when the process dies.

    Args:
        path: the store's directory.
        wait: seconds to wait for it.

    Raises:
        StoreBusy: another process (or thread) holds it.
        StoreError: it cannot be locked at all.
    """
    with lock_file(path / "LOCK", wait, f"another build of the store in {path} is running; wait for it to end"):
        yield


@contextlib.contextmanager
def lock_file(file: Path, wait: float, busy: str) -> Generator[None]:
    """Hold a lock on a file of the store, which only its owner can open.

    SQLite's own file lock works on every system that Python's `sqlite3` does, and is free when the process dies.

    Args:
        file: the lock file; made when it is not there.
        wait: seconds to wait for it.
        busy: the message when another process holds it.

    Raises:
        StoreBusy: another process (or thread) holds it.
        StoreError: it cannot be locked at all.
    """
    connection: sqlite3.Connection | None = None
    problem, held = "", False
    try:
        try:
            descriptor = private_opener(str(file), os.O_RDWR | os.O_CREAT)
            try:
                if os.fstat(descriptor).st_mode & 0o077:
                    os.fchmod(descriptor, 0o600)  # a read lock of another user would block every refresh
            finally:
                os.close(descriptor)
            connection = sqlite3.connect(file, timeout=wait, isolation_level=None)
            connection.execute("PRAGMA journal_mode = MEMORY")  # no file that a kill leaves behind
            connection.execute("BEGIN EXCLUSIVE")
        except OSError as error:
            problem = error.strerror or type(error).__name__
        except sqlite3.Error as error:
            held = error.sqlite_errorname in ("SQLITE_BUSY", "SQLITE_LOCKED")
            problem = error.sqlite_errorname
        if held:
            raise StoreBusy(busy)
        if problem:
            raise StoreError(f"the store in {file.parent} cannot be locked ({problem}); is the directory writable?")
        yield
    finally:
        if connection is not None:
            connection.close()


def remove_leftovers(path: Path, manifest: Manifest) -> None:
    """Delete data files that the manifest does not name, and a manifest that was not finished. Only under the lock."""
    with contextlib.suppress(OSError):
        (path / f"{MANIFEST}.new").unlink()
    kept = {file.name for parts in manifest.parts.values() for file in parts.files}
    for file in path.glob("*.db*"):
        if file.name not in kept:
            with contextlib.suppress(OSError):  # on Windows a reader may still have it open: the next build gets it
                if file.is_dir():  # what did not fit into a killed build's memory
                    shutil.rmtree(file)
                else:
                    file.unlink()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _to_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "generation": manifest.generation,
        "next_id": manifest.next_id,
        "secret": manifest.secret.hex(),
        "collections": [
            {
                "id": item.id,
                "index_id": item.index_id,
                "name": item.name,
                "description": item.description,
                "key": item.key,
                "columns": [[column.name, column.type, column.known] for column in item.columns],
                "filterable": item.filterable,
                "index_fields": item.index_fields,
                "rows": item.rows,
                "generation": item.generation,
                "created_at": item.created_at.isoformat(),
                "updated_at": item.updated_at.isoformat(),
                **_parts_to_json(manifest.parts[item.id]),
            }
            for item in manifest.collections.values()
        ],
    }


def _parts_to_json(parts: CollectionFiles) -> dict[str, Any]:
    return {
        "files": [[file.name, file.rows] for file in parts.files],
        "next_docid": parts.next_docid,
        "since": parts.since,
    }


def _from_json(content: dict[str, Any], seen: tuple[int, int, int]) -> Manifest:
    collections: dict[int, Collection] = {}
    parts: dict[int, CollectionFiles] = {}
    for item in content["collections"]:
        shown = item["index_fields"]
        collection = Collection(
            id=int(item["id"]),
            index_id=item["index_id"],
            name=item["name"],
            description=item["description"],
            key=item["key"],
            columns=tuple(Column(*column) for column in item["columns"]),
            filterable=tuple(item["filterable"]),
            index_fields=None if shown is None else tuple(shown),
            rows=int(item["rows"]),
            generation=int(item["generation"]),
            created_at=_time(item["created_at"]),
            updated_at=_time(item["updated_at"]),
        )
        collections[collection.id] = collection
        parts[collection.id] = CollectionFiles(
            # A name in this directory, whatever the manifest says.
            files=tuple(DataFile(Path(name).name, int(rows)) for name, rows in item["files"]),
            next_docid=int(item["next_docid"]),
            since=int(item["since"]),
        )
    return Manifest(
        generation=int(content["generation"]),
        next_id=int(content["next_id"]),
        secret=bytes.fromhex(content["secret"]),
        parts=parts,
        collections=collections,
        signature=seen,
    )
