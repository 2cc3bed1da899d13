"""Second pass over the input, for outputs whose columns are known only after all records.

The first pass writes a journal: one line per kept record, with its number and its added fields. Unlike a Parquet file,
a journal can be truncated and continued after a crash. The output depends only on the input and the journal, so
interruptions do not change its bytes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from ...errors import InputError
from ..tables.columns import Columns
from .column_types import alias, cell, plain
from .formats import FileSpec, arrow
from .line_writer import csv_line, encoded
from .parquet_reader import ParquetRecordReader
from .select_reader import Item, RecordReader

__all__ = ["assemble", "entry"]

GROUP = 65_536
"""Records in a row group of a Parquet file that is made, at most."""

Entry = tuple[int, dict[str, Any]]


def entry(number: int, text: str) -> bytes:
    """Return a line of the journal: the number of a record and its added fields, as JSON."""
    return f"[{number}, {text}]\n".encode()


def _entries(journal: BinaryIO) -> Iterator[Entry]:
    for line in journal:
        number, values = json.loads(line)
        yield number, values


def _matched(reader: RecordReader, entries: Iterator[Entry]) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Yield the records in the journal with their added fields, and read the input to its end."""
    items = iter(reader)
    for number, values in entries:
        for item in items:
            if item.number == number:
                yield item, values
                break
        else:
            raise _shorter(reader)
    for _ in items:  # to the end, since the digest covers the whole input
        pass


def _shorter(reader: RecordReader) -> InputError:
    return InputError(f"{reader.spec.name} became shorter while it was read; run again when nothing writes to it")


def assemble(
    reader: RecordReader,
    journal: BinaryIO,
    file: BinaryIO,
    spec: FileSpec,
    *,
    kinds: dict[str, str],
    read_kinds: dict[str, str],
    declared: dict[str, Any] | None,
) -> list[str]:
    """Write the output.

    Args:
        reader: the reader of the input, from its beginning. It is read to its end.
        journal: the journal of the first pass.
        file: the output file.
        spec: the output file's specification.
        kinds: the kinds of the columns to add, in order.
        read_kinds: the kinds of the input's columns, if its format has no types.
        declared: declared types of columns to add, by name, instead of inferred ones.

    Returns:
        The columns that were not added, because the input already has them.

    Raises:
        InputError: the input has fewer records than the first pass saw, or a value that the output cannot hold.
    """
    own = list(reader.columns or read_kinds)
    clashes = [name for name in kinds if name in own]
    added = {name: kind for name, kind in kinds.items() if name not in own}
    if spec.format == "csv":
        _csv(reader, _entries(journal), file, spec, own, list(added))
    else:
        types = {name: (declared or {}).get(name) or alias(kind) for name, kind in added.items()}
        columns = Columns(types, "") if types else None
        if isinstance(reader, ParquetRecordReader):
            _from_parquet(reader, _entries(journal), file, columns)
        else:
            own_types = {name: alias(read_kinds.get(name, "text")) for name in own}
            _from_rows(reader, _entries(journal), file, Columns(own_types, ""), columns)
    return clashes


def _csv(
    reader: RecordReader, entries: Iterator[Entry], file: BinaryIO, spec: FileSpec, own: list[str], added: list[str]
) -> None:
    text = reader.text
    file.write(text.mark + (csv_line([*own, *added], spec.delimiter) + reader.newline).encode(text.codec, "replace"))
    for item, values in _matched(reader, entries):
        record = reader.values(item)
        cells = [cell(record.get(name)) for name in own]
        cells += [cell(values.get(name)) for name in added]
        line = encoded(csv_line(cells, spec.delimiter) + reader.newline, text)
        if line is None:
            raise InputError(
                f"{reader.spec.name}, {item.place}: a value has a character that {text.codec} lacks; write JSONL, "
                "or convert the input to UTF-8"
            )
        file.write(line)


def _from_rows(
    reader: RecordReader, entries: Iterator[Entry], file: BinaryIO, own: Columns, added: Columns | None
) -> None:
    """Convert CSV (all text) and JSONL (inferred types) to Parquet."""
    pa, parquet = arrow(), arrow("pyarrow.parquet")
    schema = _schema([*own.schema(), *(added.schema() if added else [])])
    with parquet.ParquetWriter(file, schema) as writer:
        matched = _matched(reader, entries)
        while chunk := list(itertools.islice(matched, GROUP)):
            records = [{name: plain(value) for name, value in reader.values(item).items()} for item, _ in chunk]
            arrays, _ = own.fill(records)
            if added is not None:
                arrays |= added.fill([values for _, values in chunk])[0]
            writer.write_table(pa.table([arrays[name] for name in schema.names], schema=schema), row_group_size=GROUP)


def _schema(pairs: list[tuple[str, Any]], metadata: Any = None) -> Any:
    return arrow().schema(pairs, metadata=metadata)


def _from_parquet(reader: ParquetRecordReader, entries: Iterator[Entry], file: BinaryIO, added: Columns | None) -> None:
    """Write the input's columns unchanged, followed by the new ones."""
    pa, parquet = arrow(), arrow("pyarrow.parquet")
    schema = reader.schema
    for name, kind in added.schema() if added else []:
        schema = schema.append(pa.field(name, kind))
    with parquet.ParquetWriter(file, schema, compression=_compression(reader)) as writer:
        first = 1
        ahead = next(entries, None)
        for batch in reader.batches(GROUP):
            places: list[int] = []
            chunk: list[dict[str, Any]] = []
            while ahead is not None and ahead[0] < first + batch.num_rows:
                places.append(ahead[0] - first)
                chunk.append(ahead[1])
                ahead = next(entries, None)
            first += batch.num_rows
            if not chunk:
                continue
            kept = batch if len(places) == batch.num_rows else batch.take(pa.array(places, pa.int64()))
            arrays = list(kept.columns)
            if added is not None:
                filled, _ = added.fill(chunk)
                arrays += [filled[name] for name, _ in added.schema()]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=GROUP)
        if ahead is not None:
            raise _shorter(reader)


def _compression(reader: ParquetRecordReader) -> str:
    """Return the compression of the input's first column."""
    metadata = reader.metadata
    if not metadata.num_row_groups or not metadata.num_columns:
        return "snappy"
    found = str(metadata.row_group(0).column(0).compression).lower()
    return (
        found
        if found in ("snappy", "gzip", "brotli", "zstd", "lz4")
        else "none"
        if found == "uncompressed"
        else "snappy"
    )
