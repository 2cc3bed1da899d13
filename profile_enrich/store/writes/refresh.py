"""Incremental refresh of collections."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from ..._utils.validation import check_number
from ...errors import ConfigurationError, StoreError
from ..build_reports import BuildProgress, RefreshedCollection, RefreshReport
from ..collection import Collection, ColumnType, expected_types
from ..collection_specs import MAX_SHRINK, CollectionSpec, RefreshSpec
from ..files.collection_writer import duplicates_found
from ..files.layer_reader import FileGone
from ..files.manifest import Manifest, read_manifest
from ..files.row_encoder import EncodedRow, RowEncoder, RowRejected, key_text
from ..files.transaction import change_store
from ..input_types import Stream
from ..inputs.base import InputReader, check_columns, kind_of, unchanged
from ..inputs.rejects import check_paths
from ..inputs.select_reader import open_reader
from .build_checks import check_shrink
from .delta import Delta, missing_file
from .duckdb_rows import bulk_rows, checked
from .single_records import apply, encoder_of, find_collection

__all__ = ["refresh_store"]

Item = TypeVar("Item")

_PROGRESS_EVERY = 0.1

VANISHED_AND_REJECTS = (
    "{}: rejects= (given now, or when it was built) and vanished='delete' contradict each other: the record of a broken"
    " line, which is left out, would be deleted"
)

_YES = ("true", "1", "t", "y", "yes")
_NO = ("false", "0", "f", "n", "no", "", "null")


def refresh_store(
    path: Path | str,
    collections: Sequence[RefreshSpec],
    *,
    on_duplicate: Literal["last", "fail"] = "last",
    max_shrink: float = MAX_SHRINK,
    progress: Callable[[BuildProgress], None] | None = None,
    wait: float = 0,
) -> RefreshReport:
    """Apply changes to collections, as one new generation.

    Rows are compared with the stored records, so a source with all rows writes only the differences. The changes are
    written as a small file and become visible by one atomic rename. If nothing changed, there is no new generation.
    `LocalStore.changes_since` returns the changes.

    Args:
        path: the store's directory.
        collections: the changes to apply.
        on_duplicate: what to do if two rows have the same key: keep the `"last"`, or `"fail"`.
        max_shrink: the share of records that a collection may lose with `vanished="delete"`, from 0 to 1. If it would
            lose more, nothing is changed. Default 0.2.
        progress: called with the progress, at most ten times per second and at the end of each collection.
        wait: seconds to wait for another writer.

    Returns:
        What was read and changed, for each collection.

    Raises:
        StoreError: the store or collection does not exist; a source cannot be read or lacks a column of the collection;
            `vanished="delete"` would delete more than `max_shrink`; there are duplicate keys with
            `on_duplicate="fail"`; or another process is writing. The data are untouched.
        MissingExtraError: reading this source needs an extra.
        ConfigurationError: the specification is inconsistent.
    """
    began = time.monotonic()
    path, specs = Path(path), list(collections)
    check_refresh_specs(specs, on_duplicate)
    check_number("max_shrink", max_shrink, most=1, unit="parts of the records")
    read_manifest(path)
    check_paths(specs, path)

    def change(old: Manifest) -> tuple[Manifest, RefreshReport]:
        manifest, reports = old, list[RefreshedCollection]()
        for spec in specs:
            with unchanged(spec.source):
                manifest, report = _refresh_one(
                    path, manifest, old.generation + 1, spec, on_duplicate, max_shrink, progress
                )
            reports.append(report)
        return manifest, RefreshReport(path, manifest.generation, tuple(reports), 0.0)

    return replace(change_store(path, change, wait=wait), seconds=time.monotonic() - began)


def check_refresh_specs(specs: Sequence[RefreshSpec], on_duplicate: str) -> None:
    if on_duplicate not in ("last", "fail"):
        raise ConfigurationError(f"on_duplicate is 'last' or 'fail', not {on_duplicate!r}")
    names = [spec.name for spec in specs]
    if not names:
        raise ConfigurationError("no collection was given to refresh")
    for spec in specs:
        if names.count(spec.name) > 1:
            raise ConfigurationError(f"two refreshes are of {spec.name!r}")
        if spec.vanished not in ("keep", "delete"):
            raise ConfigurationError(f"vanished is 'keep' or 'delete', not {spec.vanished!r}")
        if spec.source is None and (spec.vanished == "delete" or spec.tombstone is not None):
            raise ConfigurationError("vanished='delete' and a tombstone column need a source")
        if spec.new_columns not in ("fail", "ignore"):
            raise ConfigurationError(f"new_columns is 'fail' or 'ignore', not {spec.new_columns!r}")
        if spec.vanished == "delete" and spec.rejects is not None:
            raise ConfigurationError(VANISHED_AND_REJECTS.format(spec.name))


def _refresh_one(
    path: Path,
    manifest: Manifest,
    generation: int,
    spec: RefreshSpec,
    on_duplicate: str,
    max_shrink: float,
    progress: Callable[[BuildProgress], None] | None,
) -> tuple[Manifest, RefreshedCollection]:
    old = find_collection(path, manifest, spec.name)
    if spec.tombstone is not None and spec.tombstone in {column.name for column in old.columns}:
        raise ConfigurationError(f"the tombstone column {spec.tombstone!r} is a column of the collection")
    with contextlib.suppress(FileGone), Delta(path, manifest, old) as delta:
        report = RefreshedCollection(old)
        if spec.source is not None:
            report = _take_in(spec, old, delta, on_duplicate, max_shrink, progress)
        asked, unmatched = report.asked_deletes, report.unmatched_deletes
        for key in keys_of(spec.deleted):
            asked, found = asked + 1, False
            with contextlib.suppress(UnicodeEncodeError):  # no stored key has a lone surrogate
                found = delta.delete(key)
            unmatched += not found
        manifest = apply(manifest, generation, delta, old, merge=True)
        return manifest, replace(
            report,
            collection=manifest.collections[old.id],
            inserted=delta.inserted,
            updated=delta.updated,
            deleted=delta.deleted,
            asked_deletes=asked,
            unmatched_deletes=unmatched,
            merged=delta.merged,
        )
    raise StoreError(missing_file(path))


def _take_in(
    spec: RefreshSpec,
    old: Collection,
    delta: Delta,
    on_duplicate: str,
    max_shrink: float,
    progress: Callable[[BuildProgress], None] | None,
) -> RefreshedCollection:
    reader = open_reader(source_of(spec, old), expected_types(old, old.key))
    taking = ChangeApplier(spec, old, delta, reader)
    next_report = 0.0
    number = 0
    try:
        if reader.columns():
            check_columns(source_of(spec, old), reader.columns(), reader.where)
        check_new_columns(spec, reader)
        bulk = None
        if spec.tombstone is None and old.index_fields is not None:
            shown = replace(source_of(spec, old), filterable=old.filterable, index_fields=old.index_fields)
            bulk = bulk_rows(reader, shown, old.index_id)
        rows = reader.rows() if bulk is None else chain.from_iterable(bulk)
        for number, row in enumerate(rows, 1):
            if bulk is None:
                taking.take(number, *row)
            else:
                taking.take_encoded(number, row)
            if progress is not None and not number & 0xFF and time.monotonic() >= next_report:
                progress(BuildProgress(spec.name, number, reader.total))
                next_report = time.monotonic() + _PROGRESS_EVERY
        if spec.tombstone is not None and number and spec.tombstone not in reader.columns():
            raise StoreError(f"{reader.where} has no column {spec.tombstone!r} (tombstone)")
        check_new_columns(spec, reader)  # those of JSON are known only now
        rejects = reader.rejects
        rejects.finish()
    finally:
        reader.close()
    if on_duplicate == "fail" and taking.first_repeated is not None:
        raise StoreError(duplicates_found(taking.repeated, taking.first_repeated))
    if spec.vanished == "delete":
        check_shrink(old.name, old.rows, delta.delete_others(), max_shrink, rejects.reasons)
    if progress is not None:
        progress(BuildProgress(spec.name, number, number))
    return RefreshedCollection(
        old,
        read=number + rejects.broken,
        unchanged=taking.unchanged,
        duplicates=taking.repeated,
        rejected=rejects.reasons,
        first_rejected=rejects.first_row,
        asked_deletes=taking.asked_deletes,
        unmatched_deletes=taking.unmatched_deletes,
    )


def source_of(spec: RefreshSpec, old: Collection) -> CollectionSpec:
    """Return the specification for reading the source, with the columns of the collection."""
    fields = [column.name for column in old.columns]
    source = spec.source if spec.source is not None else ()
    kind = None
    if isinstance(source, Stream):
        kind = source.format
    elif isinstance(source, str | Path):
        kind, _ = kind_of(Path(source), spec.format)
    # Text columns stay text, even if the changed rows hold only digits.
    types: dict[str, ColumnType] = {}
    if kind in ("csv", "tsv"):
        types = {column.name: "text" for column in old.columns if column.type == "text"}
    return CollectionSpec(
        spec.name,
        source,
        key=old.key,
        fields=fields if spec.tombstone is None else [*fields, spec.tombstone],
        types=types,
        encoding=spec.encoding,
        delimiter=spec.delimiter,
        format=spec.format,
        rejects=spec.rejects,
    )


def check_new_columns(spec: RefreshSpec, reader: InputReader) -> None:
    """Check that the collection has all columns of the source, as far as they are known.

    Raises:
        StoreError: it lacks one, and the specification does not say that it is ignored.
    """
    if spec.new_columns == "fail" and reader.left_out:
        raise StoreError(
            f"{reader.where} has the column {min(reader.left_out)!r}, which the collection {spec.name!r} lacks; a full"
            " build or refresh adds it. To leave it out, pass new_columns='ignore'"
        )


class ChangeSink(Protocol):
    """The receiver of the changes."""

    def put(self, row: EncodedRow) -> str:
        """Add a record; return `"new"`, `"updated"`, `"unchanged"` or `"repeated"`."""
        ...

    def delete(self, key: str) -> bool:
        """Delete the record with this key, if it exists."""
        ...

    def keep(self, key: str) -> None:
        """Keep the record with this key unchanged."""
        ...


class ChangeApplier:
    """Apply rows one by one."""

    def __init__(self, spec: RefreshSpec, old: Collection, delta: ChangeSink, reader: InputReader) -> None:
        self._tombstone = spec.tombstone
        self._key = old.key
        self._delta = delta
        self._reader = reader
        self._encoder: RowEncoder = encoder_of(old)
        self.unchanged = 0
        self.repeated = 0
        self.first_repeated: int | None = None
        self.asked_deletes = 0
        self.unmatched_deletes = 0

    def take(self, number: int, names: Sequence[str], values: Sequence[object]) -> None:
        """Apply one row."""
        reason = ""
        try:
            self._take(number, names, values)
        except RowRejected as error:
            reason = error.reason
        except RecursionError:
            reason = "it is nested too deeply"
        if reason:
            self._reader.reject(number, names, values, reason)
            # The rejected row's record still exists in the source.
            with contextlib.suppress(RowRejected, UnicodeEncodeError, ValueError):
                self._delta.keep(key_text(values[list(names).index(self._key)]))

    def _take(self, number: int, names: Sequence[str], values: Sequence[object]) -> None:
        texts = self._reader.texts(values)
        if self._tombstone is not None and self._tombstone in names:
            at = list(names).index(self._tombstone)
            names, texts, gone = _without(names, at), _without(texts, at), texts[at]
            values = _without(values, at)
            if _says_yes(gone):
                key = key_text(values[list(names).index(self._key)] if self._key in names else None)
                self.asked_deletes += 1
                self.unmatched_deletes += not self._delta.delete(key)
                return
        self._put(number, self._encoder.encode(names, texts, values))

    def take_encoded(self, number: int, values: tuple[Any, ...]) -> None:
        """Apply one row of `BulkRows`."""
        try:
            self._put(number, checked(values))
        except RowRejected as error:
            self._reader.reject(number, (), (), error.reason)
            with contextlib.suppress(RowRejected):  # as in `take`
                self._delta.keep(key_text(values[0]))

    def _put(self, number: int, row: EncodedRow) -> None:
        outcome = self._delta.put(row)
        if outcome == "unchanged":
            self.unchanged += 1
        elif outcome == "repeated":
            self.repeated += 1
            self.first_repeated = self.first_repeated or number


def _without(items: Sequence[Item], at: int) -> list[Item]:
    return [*items[:at], *items[at + 1 :]]


def _says_yes(text: str) -> bool:
    word = text.strip('" ').lower()
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise RowRejected("its tombstone column is neither true nor false")


def keys_of(source: Path | str | Iterable[str]) -> Iterator[str]:
    """Yield keys: those given, or those in a file, one a line."""
    if not isinstance(source, str | Path):
        yield from source
        return
    problem = ""
    try:
        with Path(source).open(encoding="utf-8-sig", newline="\n") as lines:
            for line in lines:
                if key := line.rstrip("\r\n"):
                    yield key
    except UnicodeDecodeError:
        problem = "not valid UTF-8"
    except OSError as error:
        problem = error.strerror or type(error).__name__
    if problem:
        raise StoreError(f"{source} cannot be read: {problem}")
