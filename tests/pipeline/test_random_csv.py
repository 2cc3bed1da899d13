"""`enrich` reads 1,500 random CSV files exactly as Python's own reader does."""

from __future__ import annotations

from pathlib import Path

import pytest

from profile_enrich.pipeline.files.formats import FileSpec
from profile_enrich.pipeline.files.select_reader import open_reader
from tests.random_csv import random_csv

AT_ONCE = 500


@pytest.mark.parametrize("first", range(0, 1500, AT_ONCE))
def test_E9_random_files_are_read_as_pythons_reader_does(tmp_path: Path, first: int) -> None:
    """E9: each value, in order."""
    for seed in range(first, first + AT_ONCE):
        file = random_csv(tmp_path, seed)
        encoding = None if file.encoding == "utf-8" else file.encoding
        spec = FileSpec.of(file.path, delimiter=file.delimiter)
        reader = open_reader(spec, "id", encoding=encoding, whole=True, as_text=False)
        try:
            rows = []
            for item in reader:
                assert item.fault is None, seed
                rows.append(list(reader.values(item).values()))
        finally:
            reader.close()
        assert rows == file.rows, seed
        file.path.unlink()
