"""Selection of the reader for an input file."""

from __future__ import annotations

from .formats import FileSpec, open_binary
from .line_readers import CsvRecordReader, JsonReader
from .parquet_reader import ParquetRecordReader
from .record_reader import Block, Item, RecordReader

__all__ = ["Block", "Item", "RecordReader", "open_reader"]


def open_reader(
    spec: FileSpec, key: str, *, encoding: str | None = None, whole: bool = True, as_text: bool = False
) -> RecordReader:
    """Open an input.

    Args:
        spec: the file.
        key: the column to look up by.
        encoding: the encoding of the text; `None` for that of the byte order mark, otherwise UTF-8.
        whole: `False` reads only the key of a Parquet file.
        as_text: whether the values of a Parquet file will be written as text, so that values without one are faults.

    Raises:
        InputError: the file cannot be read.
        ConfigurationError: the column does not exist.
    """
    if spec.format == "parquet":
        return ParquetRecordReader(spec, key, whole=whole or as_text, as_text=as_text)
    made = CsvRecordReader if spec.format == "csv" else JsonReader
    file = open_binary(spec)
    try:
        return made(spec, key, encoding, file)
    except BaseException:
        if spec.path is not None:
            file.close()
        raise
