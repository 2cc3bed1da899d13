"""Reader of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import ConfigurationError, InputError
from .arrow_values import Unreadable, python_values
from .formats import FileSpec, arrow
from .record_reader import Item, RecordReader, no_column

__all__ = ["ParquetRecordReader"]

BATCH = 8192
"""Records of a Parquet file that are in memory at a time."""


class ParquetRecordReader(RecordReader):
    """Read batches of a Parquet file. Values are converted to Python only when needed."""

    def __init__(self, spec: FileSpec, key: str, *, whole: bool, as_text: bool) -> None:
        super().__init__(spec, key)
        parquet = arrow("pyarrow.parquet")
        failed = False
        try:
            self._file = parquet.ParquetFile(
                spec.path, pre_buffer=False, buffer_size=2**18, page_checksum_verification=True
            )
        except (OSError, ValueError):  # pyarrow's own errors are one or the other
            failed = True
        if failed:
            why = "it is no Parquet file, or damaged" if spec.path and spec.path.exists() else "it does not exist"
            raise InputError(f"{spec.path}: {why}")
        self.schema = self._file.schema_arrow
        self.columns = list(self.schema.names)
        self.total = self._file.metadata.num_rows
        if key not in self.columns:
            self._file.close()
            raise ConfigurationError(no_column(spec, key, self.columns))
        self._wanted = None if whole else [key]
        self._keys: list[Any] = []
        types = arrow().types
        risky = [field.name for field in self.schema if types.is_temporal(field.type) or types.is_nested(field.type)]
        self._checked = risky if as_text else [key] if key in risky else []
        self._done = 0

    def batches(self, size: int = BATCH) -> Iterator[Any]:
        """Iterate over record batches with the requested columns."""
        broken = False
        batches = self._file.iter_batches(batch_size=size, columns=self._wanted)
        while True:
            batch: Any = None
            try:
                batch = next(batches, None)
            except (OSError, ValueError):
                broken = True
            if broken:
                raise InputError(f"{self.spec.path}: damaged after row {self._done:,}")
            if batch is None:
                return
            self._done += batch.num_rows
            self._keys = python_values(batch.column(self.key))
            self._hash.update("".join(f"{key}\0" for key in self._keys).encode("utf-8", "surrogatepass"))
            yield batch

    def __iter__(self) -> Iterator[Item]:
        number = 0
        for batch in self.batches():
            faults = self._faults(batch)
            for place, key in enumerate(self._keys):
                number += 1
                fault = faults.get(place)
                yield Item(number, 0, key if fault is None else None, None, (batch, place), fault)

    def _faults(self, batch: Any) -> dict[int, str]:
        """Return the values that cannot be written as text, by position."""
        faults: dict[int, str] = {}
        for name in self._checked:
            for place, value in enumerate(python_values(batch.column(name))):
                if isinstance(value, Unreadable):
                    faults[place] = f"the column {name}: {value.why}"
        return faults

    def values(self, item: Item) -> dict[str, Any]:
        """See `RecordReader`."""
        batch, place = item.record
        row = batch.slice(place, 1)
        return {name: python_values(column)[0] for name, column in zip(row.schema.names, row.columns, strict=True)}

    @property
    def fraction(self) -> float | None:
        """See `RecordReader`."""
        return self._done / self.total if self.total else None

    @property
    def metadata(self) -> Any:
        """The file's own metadata."""
        return self._file.metadata

    def close(self) -> None:
        """See `RecordReader`."""
        self._file.close()
