"""Insertion, replacement and deletion of single records."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ...errors import ConfigurationError, StoreError
from ..collection import Collection, Column
from ..files.layer_reader import FileGone
from ..files.manifest import Manifest
from ..files.row_encoder import RowEncoder, RowRejected, key_text, to_json, type_of
from ..files.transaction import change_store
from ..inputs.base import MAX_COLUMNS
from ..profile_store import WRITE_WAIT
from .delta import Delta, missing_file

__all__ = ["apply", "delete_record", "encoder_of", "find_collection", "put_record"]

Result = TypeVar("Result")

_LONGEST_NAME = 256
"""The longest name of a new column, in characters, because the manifest keeps all names."""


def put_record(
    path: Path | str, collection: str, record_id: str, record: Mapping[str, Any], *, wait: float = WRITE_WAIT
) -> bool:
    """Insert or replace one record, as a new generation. It takes milliseconds.

    Args:
        path: the store's directory.
        collection: its name.
        record_id: the key.
        record: all its attributes; the key column is optional. Attributes without a column appear only in the Census
            view.
        wait: seconds to wait for another writer, e.g. a refresh.

    Returns:
        True if the record is new.

    Raises:
        ConfigurationError: the record cannot be stored, or its key column holds another key.
        StoreError: the collection does not exist, another process is still writing, or writing failed.
    """

    def change(delta: Delta, old: Collection) -> tuple[bool, Collection]:
        names = {column.name for column in old.columns}
        known = {column.name: record[column.name] for column in old.columns if column.name in record}
        row = {old.key: record_id, **known, **{name: value for name, value in record.items() if name not in names}}
        problem = ""
        try:
            json.dumps(list(row.values()), allow_nan=False, default=str)
        except ValueError:
            problem = "a number is infinite or not a number, or it refers to itself"
        except RecursionError:
            problem = "it is nested too deeply"
        if len(names | set(row)) > MAX_COLUMNS:
            problem = f"the collection would have more than {MAX_COLUMNS:,} columns"
        if any(len(name) > _LONGEST_NAME for name in set(row) - names):
            problem = f"the name of a column has more than {_LONGEST_NAME} characters"
        if problem:
            raise ConfigurationError(f"the record cannot be stored: {problem}")
        added = tuple(
            Column(name, type_of(row[name]) or "text", row[name] is not None) for name in row if name not in names
        )
        problem = ""
        try:
            encoded = encoder_of(old).encode(list(row), [to_json(value) for value in row.values()], list(row.values()))
            if encoded.key == record_id:
                return delta.put(encoded) == "new", replace(old, columns=old.columns + added)
            problem = "its key column holds another key"
        except RowRejected as rejected:
            problem = rejected.reason
        except RecursionError:
            problem = "it is nested too deeply"
        raise ConfigurationError(f"the record cannot be stored: {problem}")

    return _with_collection(Path(path), collection, change, wait)


def delete_record(path: Path | str, collection: str, record_id: str, *, wait: float = WRITE_WAIT) -> bool:
    """Delete one record, as a new generation. It takes milliseconds.

    Args:
        path: the store's directory.
        collection: its name.
        record_id: the key.
        wait: seconds to wait for another writer, e.g. a refresh.

    Returns:
        True if the record existed.

    Raises:
        StoreError: the collection does not exist, another process is still writing, or writing failed.
    """

    def change(delta: Delta, old: Collection) -> tuple[bool, Collection]:
        try:
            return delta.delete(key_text(record_id)), old
        except (RowRejected, UnicodeEncodeError):  # no stored key has this form
            return False, old

    return _with_collection(Path(path), collection, change, wait)


def encoder_of(collection: Collection) -> RowEncoder:
    """Return the encoder for records of this collection."""
    encoder = RowEncoder(
        key=collection.key,
        index_id=collection.index_id,
        index_fields=collection.index_fields,
        filterable=collection.filterable,
    )
    encoder.with_index = collection.index_fields is not None
    return encoder


def find_collection(path: Path, manifest: Manifest, name: str) -> Collection:
    """Return the collection with this name.

    Raises:
        StoreError: it does not exist.
    """
    found = next((item for item in manifest.collections.values() if item.name == name), None)
    if found is None:
        raise StoreError(f"the store in {path} has no collection {name!r}")
    return found


def _with_collection(
    path: Path, name: str, change: Callable[[Delta, Collection], tuple[Result, Collection]], wait: float
) -> Result:
    """Change one collection, as a new generation."""

    def swap(manifest: Manifest) -> tuple[Manifest, Result]:
        old = find_collection(path, manifest, name)
        with contextlib.suppress(FileGone), Delta(path, manifest, old) as delta:
            result, collection = change(delta, old)
            return apply(manifest, manifest.generation + 1, delta, collection, merge=False), result
        raise StoreError(missing_file(path))

    return change_store(path, swap, wait=wait)


def apply(manifest: Manifest, generation: int, delta: Delta, collection: Collection, *, merge: bool) -> Manifest:
    """Return the manifest with these changes; the same one if there are none."""
    written = delta.write(generation, collection, merge=merge)
    if written is None:
        return manifest
    parts, collection = written
    return replace(
        manifest,
        generation=generation,
        parts={**manifest.parts, collection.id: parts},
        collections={**manifest.collections, collection.id: collection},
    )
