"""Builds of collections from files or iterables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from ..._utils.files import make_directory
from ..._utils.validation import check_number
from ...errors import StoreError
from ..build_reports import BuildProgress, BuildReport, CollectionReport
from ..collection import Collection, Column, expected_types, index_id_of
from ..collection_specs import MAX_INDEX_FIELDS, CollectionSpec
from ..files.collection_writer import CollectionWriter
from ..files.docids import DocIdAllocator
from ..files.layer_reader import FileGone, Layer
from ..files.manifest import LOCK, MANIFEST, CollectionFiles, Manifest, data_files, new_manifest, read_manifest
from ..files.row_encoder import RowEncoder, RowRejected
from ..files.transaction import change_store
from ..inputs.base import InputReader, check_columns, unchanged
from ..inputs.rejects import Rejects, check_paths
from ..inputs.select_reader import open_reader
from .build_checks import check_any_stored, check_shrink, check_specs
from .duckdb_rows import BulkRows, bulk_rows, checked

__all__ = ["build_store", "drop_collections"]

_PROGRESS_EVERY = 0.1


def build_store(
    path: Path | str,
    collections: Sequence[CollectionSpec],
    *,
    on_duplicate: Literal["last", "fail"] = "last",
    max_shrink: float = 1.0,
    progress: Callable[[BuildProgress], None] | None = None,
) -> BuildReport:
    """Build collections from files or iterables, and publish them in one atomic swap.

    A store is a directory. Other collections in it do not change. The new data are written next to the old and become
    visible by one atomic rename at the end. If the process is killed before, the old data are untouched, and the next
    build removes leftover files. Readers pick up the swap automatically.

    Args:
        path: the store's directory; created if it does not exist.
        collections: the collections to build.
        on_duplicate: what to do if two rows have the same key: keep the `"last"`, or `"fail"`.
        max_shrink: the share of records that a collection may lose, from 0 to 1. If it would lose more, nothing is
            changed. The default 1.0 allows any loss.
        progress: called with the progress, at most ten times per second and at the end of each collection.

    Returns:
        What was read, stored, replaced and rejected, for each collection.

    Raises:
        StoreError: a file cannot be read, lacks a column, has another encoding or malformed lines; there are duplicate
            keys with `on_duplicate="fail"`; none of its rows can be stored; a collection would lose more than
            `max_shrink`; or another build of this store is running. It names the file and, where it can, the
            line; never a value.
        MissingExtraError: reading CSV and Parquet files needs the extra `server`.
        ConfigurationError: the specification is inconsistent.
    """
    began = time.monotonic()
    specs = list(collections)
    check_specs(specs, on_duplicate)
    check_number("max_shrink", max_shrink, most=1, unit="parts of the records")
    path = Path(path)
    check_paths(specs, path)
    problem, made = "", not path.exists()
    if not made and path.is_dir():
        _start(path)  # first, so that no lock file is made in a rejected directory
    try:
        make_directory(path)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    if problem:
        raise StoreError(f"the directory {path} cannot be made: {problem}")

    def change(old: Manifest) -> tuple[Manifest, BuildReport]:
        new, reports = old, list[CollectionReport]()
        try:
            for spec in specs:
                with unchanged(spec.source):
                    new, report = _build_one(path, new, old.generation + 1, spec, on_duplicate, max_shrink, progress)
                reports.append(report)
        except BaseException:
            if made:
                (path / LOCK).unlink(missing_ok=True)  # while the lock is held, so that no other build uses it
            raise
        new = replace(new, generation=old.generation + 1)
        return new, BuildReport(path, new.generation, tuple(reports), 0.0)

    try:
        report = change_store(path, change, start=_start)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # it holds more than this build made
                path.rmdir()
        raise
    return replace(report, seconds=time.monotonic() - began)


def drop_collections(path: Path | str, names: Iterable[str]) -> None:
    """Remove collections from a store, with their data.

    Raises:
        StoreError: the store or a collection does not exist; nothing was removed.
    """
    path = Path(path)
    read_manifest(path)

    def change(manifest: Manifest) -> tuple[Manifest, None]:
        gone: set[int] = set()
        for name in names:
            found = next((item.id for item in manifest.collections.values() if item.name == name), None)
            if found is None:
                raise StoreError(f"the store in {path} has no collection {name!r}")
            gone.add(found)
        return replace(
            manifest,
            generation=manifest.generation + 1,
            collections={key: item for key, item in manifest.collections.items() if key not in gone},
            parts={key: parts for key, parts in manifest.parts.items() if key not in gone},
        ), None

    change_store(path, change)


def _start(path: Path) -> Manifest:
    return read_manifest(path) if (path / MANIFEST).exists() else _fresh(path)


def _fresh(path: Path) -> Manifest:
    """Return the manifest of a new store, unless the directory holds other files."""
    ours = ("LOCK", "LOCK-journal", f"{MANIFEST}.new")
    known = {file.name for file in data_files(path)}
    if any(file.name not in ours and file.name not in known for file in path.iterdir()):
        raise StoreError(f"{path} holds other files and is not a store; name a new or an empty directory")
    return new_manifest()


class _BuildCounts(NamedTuple):
    read: int
    rejects: Rejects


def _build_one(
    path: Path,
    manifest: Manifest,
    generation: int,
    spec: CollectionSpec,
    on_duplicate: str,
    max_shrink: float,
    progress: Callable[[BuildProgress], None] | None,
) -> tuple[Manifest, CollectionReport]:
    before = next((item for item in manifest.collections.values() if item.name == spec.name), None)
    number = manifest.next_id if before is None else before.id
    index_id = index_id_of(spec.name)
    encoder = RowEncoder(key=spec.key, index_id=index_id, index_fields=spec.index_fields, filterable=spec.filterable)
    reader = open_reader(spec, {} if before is None else expected_types(before, spec.key))
    name = f"{number}-{generation:06}"
    try:
        with _old_layers(path, manifest, before) as layers:
            placing = DocIdAllocator(before, layers, 1 if before is None else manifest.parts[number].next_docid)
            with CollectionWriter(path / f"{name}.db", len(spec.filterable)) as writer:
                bulk = bulk_rows(reader, spec, index_id)
                if bulk is None:
                    counts = _copy(spec, reader, encoder, placing, writer, progress)
                else:
                    encoder.with_index = bulk.with_index
                    if bulk.all_valid and placing.fresh:
                        spill = path / f"{name}-spill.db"
                        counts = _copy_plain(spec, bulk, reader, placing, writer, progress, spill)
                    else:
                        counts = _copy_bulk(spec, bulk, reader, placing, writer, progress)
                columns = reader.columns()
                untyped: Iterable[str] = set(getattr(reader, "untyped", ()))
                if counts.read or columns:
                    check_columns(spec, columns, reader.where)
                if on_duplicate == "fail":
                    placing.refuse_duplicates()
                written = writer.finish(fail_on_duplicate=on_duplicate == "fail", row_of=placing.row_of)
        if before is not None:
            kept = written.rows if placing.kept is None else placing.kept
            check_shrink(spec.name, before.rows, before.rows - kept, max_shrink, reader.rejects.reasons)
        check_any_stored(reader.where, counts.read, reader.rejects)
        reader.rejects.finish()
        files = [written.file]
        if placing.late:
            with CollectionWriter(path / f"{name}-last.db", len(spec.filterable), layer=True) as writer:
                for docid, row in sorted(placing.late.items()):
                    writer.add(docid, row, generation)
                files.append(writer.finish().file)
    finally:
        reader.close()
    firsts = [first for first in (written.first_duplicate, placing.first_late) if first is not None]
    shown = tuple(columns if spec.index_fields is None else spec.index_fields)
    now = datetime.now(UTC)
    collection = Collection(
        id=number,
        index_id=index_id,
        name=spec.name,
        description=spec.description,
        key=spec.key,
        columns=tuple(Column(name, kind, name not in untyped) for name, kind in columns.items()),
        filterable=tuple(spec.filterable),
        index_fields=shown if encoder.with_index and len(shown) <= MAX_INDEX_FIELDS else None,
        rows=written.rows,
        generation=generation,
        created_at=now if before is None else before.created_at,
        updated_at=now,
    )
    report = CollectionReport(
        collection=collection,
        read=counts.read,
        stored=written.rows,
        duplicates=written.duplicates + placing.repeated,
        first_duplicate=min(firsts, default=None),
        rejected=counts.rejects.reasons,
        first_rejected=counts.rejects.first_row,
        first_rejected_line=counts.rejects.first_line,
        warnings=tuple(_warnings(collection)),
    )
    manifest = replace(
        manifest,
        next_id=max(manifest.next_id, number + 1),
        parts={**manifest.parts, number: CollectionFiles(tuple(files), placing.next_docid, since=generation)},
        collections={**manifest.collections, number: collection},
    )
    return manifest, report


@contextlib.contextmanager
def _old_layers(path: Path, manifest: Manifest, before: Collection | None) -> Generator[list[Layer]]:
    """Return the previous layers of a collection; none if it is new or damaged, in which case it is built as new."""
    layers: list[Layer] = []
    try:
        if before is not None:
            with contextlib.suppress(FileGone, StoreError):
                layers.extend(Layer(path / file.name, before) for file in manifest.parts[before.id].files)
            if len(layers) < len(manifest.parts[before.id].files):
                layers.clear()
        yield layers
    finally:
        for layer in layers:
            layer.close()


def _copy(
    spec: CollectionSpec,
    reader: InputReader,
    encoder: RowEncoder,
    placing: DocIdAllocator,
    writer: CollectionWriter,
    progress: Callable[[BuildProgress], None] | None,
) -> _BuildCounts:
    number = 0
    next_report = 0.0
    for number, (names, values) in enumerate(reader.rows(), 1):
        reason = ""
        try:
            row = encoder.encode(names, reader.texts(values), values)
            docid = placing.place(number, row)
            if docid is not None:
                writer.add(docid, row)
        except RowRejected as error:
            reason = error.reason
        except RecursionError:
            reason = "it is nested too deeply"
        if reason:
            reader.reject(number, names, values, reason)
        if not number & 0xFF:
            if spec.index_fields is None and encoder.with_index and len(reader.columns()) > MAX_INDEX_FIELDS:
                encoder.with_index = False
            if progress is not None and time.monotonic() >= next_report:
                progress(BuildProgress(spec.name, number, reader.total))
                next_report = time.monotonic() + _PROGRESS_EVERY
    if progress is not None:
        progress(BuildProgress(spec.name, number, number))
    return _BuildCounts(number + reader.rejects.broken, reader.rejects)


def _copy_bulk(
    spec: CollectionSpec,
    bulk: BulkRows,
    reader: InputReader,
    placing: DocIdAllocator,
    writer: CollectionWriter,
    progress: Callable[[BuildProgress], None] | None,
) -> _BuildCounts:
    number = 0
    next_report = 0.0
    for batch in bulk:
        for values in batch:
            number += 1
            try:
                row = checked(values)
            except RowRejected as error:
                reader.rejects.add(error.reason, row=number)
                continue
            docid = placing.place(number, row)
            if docid is not None:
                writer.add(docid, row)
        if progress is not None and time.monotonic() >= next_report:
            progress(BuildProgress(spec.name, number, reader.total))
            next_report = time.monotonic() + _PROGRESS_EVERY
    if progress is not None:
        progress(BuildProgress(spec.name, number, number))
    return _BuildCounts(number, reader.rejects)


def _copy_plain(
    spec: CollectionSpec,
    bulk: BulkRows,
    reader: InputReader,
    placing: DocIdAllocator,
    writer: CollectionWriter,
    progress: Callable[[BuildProgress], None] | None,
    spill: Path,
) -> _BuildCounts:
    """Copy rows without checking each, if all are valid and in order."""
    number = 0
    next_report = 0.0
    with ThreadPoolExecutor(1) as pool:
        # DuckDB does most of the work in other threads, while Python writes the rows.
        postings = bulk.postings() if spec.filterable else None
        prepared = None if postings is None else pool.submit(postings.prepare, spill)
        for batch in bulk.plain():
            writer.add_plain(batch)
            number += len(batch)
            if progress is not None and time.monotonic() >= next_report:
                progress(BuildProgress(spec.name, number, reader.total))
                next_report = time.monotonic() + _PROGRESS_EVERY
        placing.place_all(number)
        writer.index_keys()
        if postings is not None and prepared is not None:
            prepared.result()
            postings.write(writer.postings)
    if progress is not None:
        progress(BuildProgress(spec.name, number, number))
    return _BuildCounts(number, reader.rejects)


def _warnings(collection: Collection) -> Iterable[str]:
    if not collection.rows:
        yield "no record was stored"
    if collection.index_fields is None:
        yield (
            f"{len(collection.columns)} columns are more than the {MAX_INDEX_FIELDS} that an Amperity index has, so"
            " only the Census view shows this collection; name at most 30 in index_fields (or fields) to have both"
        )
