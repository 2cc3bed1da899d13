"""Collections read 1,500 random CSV files (50 without the long tests) as Python's own reader does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from profile_enrich.store import CollectionSpec
from profile_enrich.store.inputs.select_reader import open_reader
from tests.random_csv import random_csv

AT_ONCE = 50


@pytest.mark.long
@pytest.mark.parametrize(
    "first", [pytest.param(each, marks=pytest.mark.long if each else ()) for each in range(0, 1500, AT_ONCE)]
)
def test_E9_random_files_are_read_as_pythons_reader_does(tmp_path: Path, first: int) -> None:
    """E9: with inferred types, each value is returned as the same text."""
    for seed in range(first, first + AT_ONCE):
        file = random_csv(tmp_path, seed)
        reader = open_reader(CollectionSpec("U", file.path, encoding=file.encoding, delimiter=file.delimiter))
        try:
            rows: list[list[str]] = []
            for names, values in reader.rows():
                assert list(names) == file.header, seed
                kinds = [reader.columns()[name] for name in names]
                texts = reader.texts(values)
                shown = [json.loads(text) if kind == "text" else text for text, kind in zip(texts, kinds, strict=True)]
                rows.append(
                    [
                        "" if text in (None, "null") and value is None else text
                        for text, value in zip(shown, values, strict=True)
                    ]
                )
        finally:
            reader.close()
        assert rows == file.rows, seed
        file.path.unlink()
