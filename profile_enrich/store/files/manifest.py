"""The manifest of a store: the list of its files, replaced atomically.

```text
profiles.store/
├── CURRENT                 the manifest (JSON): what is served
├── LOCK                    locked while a process writes
├── REFRESHING              locked while a process refreshes the store from its sources
├── REFRESHED               the result of the last refresh (JSON)
├── SOURCES                 what the collections are built from (JSON)
├── 1-000004.db             entity 1 as of generation 4
├── 1-000007.db             a layer with its changes up to generation 7
└── 2-000003.db             entity 2 as of generation 3
```

A build writes new data files, syncs them, and then renames a new manifest over the old one: this rename is the swap. A
refresh does the same with a small file, which lies above the others as a layer. If the process is killed earlier, the
old manifest and its files remain intact.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from ..._utils.files import exclusive_lock, replace_private
from ...errors import StoreBusy, StoreError
from ..collection import Collection, Column

__all__ = ["FORMAT", "CollectionFiles", "DataFile", "Manifest", "locked", "read_manifest", "write_manifest"]

FORMAT = 5
"""The format version; stores of other versions are rejected."""

MANIFEST = "CURRENT"
LOCK = "LOCK"

_DATA_FILE = re.compile(r"([0-9]+-[0-9]{6,}(-last|-base|-spill)?|[0-9a-f]{40})\.db(\.part|-journal|-wal|-shm)?")
"""The names of data files, built here or shipped. No other file of a directory is ever deleted."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file of a collection.

    Args:
        name: the file name in the store's directory.
        rows: the number of records and tombstones.
        sha256: the SHA-256 of its content, in hexadecimal.
    """

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CollectionFiles:
    """The files of a collection.

    Args:
        files: the base, then the layers above it, oldest first.
        next_docid: the docid of the next new record; docids are never reused.
        since: the generation after which the layers hold every change.
    """

    files: tuple[DataFile, ...]
    next_docid: int
    since: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a store.

    Args:
        generation: the number of the build.
        next_id: the entity id of the next new collection; ids are never reused.
        secret: the key that signs cursors (and the embedded server's tokens).
        parts: the files of each collection, by entity id.
        collections: all collections, by entity id.
        signature: identifies this version of the manifest, at the cost of one `stat`.
    """

    generation: int
    next_id: int
    secret: bytes = field(repr=False)
    parts: dict[int, CollectionFiles]
    collections: dict[int, Collection]
    signature: tuple[int, int, int] = (0, 0, 0)

    def files(self) -> list[DataFile]:
        """Return the data files of all collections."""
        return [file for parts in self.parts.values() for file in parts.files]


def new_manifest() -> Manifest:
    """Return the manifest of an empty store."""
    return Manifest(generation=0, next_id=1, secret=secrets.token_bytes(32), parts={}, collections={})


def signature(path: Path) -> tuple[int, int, int] | None:
    """Return a value that differs for every new manifest; `None` if there is none."""
    try:
        facts = (path / MANIFEST).stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino, facts.st_size


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the store in this directory.

    Raises:
        StoreError: there is no manifest, or it cannot be read.
    """
    # Before the content: if the manifest is replaced in between, the next check reads it again.
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
        problem = f"the store in {path} is damaged: its manifest is incomplete; restore {MANIFEST}"
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
    """Hold the store's lock, which the system releases when the process dies.

    Args:
        path: the store's directory.
        wait: seconds to wait for it.

    Raises:
        StoreBusy: another process (or thread) holds it.
        StoreError: it cannot be locked at all.
    """
    with lock_file(path / LOCK, wait, f"another build of the store in {path} is running; wait for it to end"):
        yield


@contextlib.contextmanager
def lock_file(file: Path, wait: float, busy: str) -> Generator[None]:
    """Hold a lock on a file of the store.

    Args:
        file: the lock file; created if it does not exist.
        wait: seconds to wait for it.
        busy: the error message if another process holds it.

    Raises:
        StoreBusy: another process (or thread) holds it.
        StoreError: it cannot be locked at all.
    """
    problem, held = "", False
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(file, wait))
        except TimeoutError:
            held = True
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if held:
            raise StoreBusy(busy)
        if problem:
            raise StoreError(f"the store in {file.parent} cannot be locked ({problem}); is the directory writable?")
        yield


def data_files(path: Path) -> list[Path]:
    """Return the data files in a directory. Files with other names do not belong to the store."""
    return [file for file in path.iterdir() if _DATA_FILE.fullmatch(file.name)]


def remove_leftovers(path: Path, manifest: Manifest) -> None:
    """Delete data files that are not in the manifest, and an unfinished manifest. Requires the lock."""
    with contextlib.suppress(OSError):
        (path / f"{MANIFEST}.new").unlink()
    kept = {file.name for file in manifest.files()}
    for file in data_files(path):
        if file.name not in kept:
            with contextlib.suppress(OSError):  # on Windows a reader may have it open; the next build deletes it
                if file.is_dir():  # spilled data of a killed build
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
        "files": [[file.name, file.rows, file.sha256] for file in parts.files],
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
            # Accept only names in this directory.
            files=tuple(DataFile(Path(name).name, int(rows), str(sha256)) for name, rows, sha256 in item["files"]),
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
