"""Odd CSV files: the store accepts the same rows as Python's strict reader, and rejects the others."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_enrich.errors import StoreError
from profile_enrich.store import CollectionSpec
from profile_enrich.store.inputs import csv_rows, private_copy
from profile_enrich.store.inputs.csv_rows import copy_rows, is_plain
from profile_enrich.store.inputs.select_reader import open_reader

# None begins with a space: Python reads quotes after spaces as text, and the store rejects such a row.
PIECES = st.sampled_from([*'a"', ",", ",", "\n", "\n", "\r\n", "\r", '"', '""', ',"', '",', 'a "', '" ', "é", "\t"])
TEXTS = st.lists(PIECES, max_size=24).map("".join)


NEVER_ENDS = "a quoted field is not closed properly"


def reference(text: str, width: int) -> tuple[list[list[str]], int] | None:
    """The rows that Python's strict reader takes of this text, and the number of the others.

    `None` if a quoted field that is not on the last line never ends.
    """
    good: list[list[str]] = []
    bad = 0
    lines = io.StringIO(text, newline="\n")
    rows = csv.reader(iter(lines.readline, ""), strict=True)
    while True:
        before = rows.line_num
        try:
            row = next(rows, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error) and rows.line_num > before + 1:
                return None
            bad += 1
            continue
        if row is None:
            return good, bad
        if row and len(row) != width:
            bad += 1
        elif row:
            good.append(row)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(1, 3))
def test_E9_the_rows_of_any_text_are_those_of_pythons_reader(text: str, width: int) -> None:
    refused: list[int] = []
    lines = text.encode().splitlines(keepends=True) if "\r" not in text else list(io.BytesIO(text.encode()))
    copying = copy_rows(lines, 2, ",", width, "u.csv", lambda line, *_: refused.append(line))
    expected = reference(text, width)
    if expected is None:
        with pytest.raises(StoreError, match=NEVER_ENDS):
            list(copying)
        return
    content = b"".join(copying)
    rows = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))
    assert (rows, len(refused)) == expected
    assert refused == sorted(refused)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
def test_E9_the_engine_gives_the_same_rows(tmp_path: Path, text: str) -> None:
    file = tmp_path / "u.csv"
    file.write_bytes(b"id,n\n" + text.encode())
    spec = CollectionSpec("U", file, types={"n": "text"}, rejects=tmp_path / "bad.jsonl")
    expected = reference(text, 2)
    if expected is None:
        with pytest.raises(StoreError, match=NEVER_ENDS):
            open_reader(spec)
        return
    good, bad = expected
    for kept in (True, False):
        if not kept and bad:
            with pytest.raises(StoreError, match=r"u\.csv, line \d+: "):
                open_reader(CollectionSpec("U", file, types={"n": "text"}))
            return
        reader = open_reader(spec if kept else CollectionSpec("U", file, types={"n": "text"}))
        try:
            rows = [["" if value is None else value for value in values] for _, values in reader.rows()]
            assert (rows, sum(reader.rejects.reasons.values())) == (good, bad)
        finally:
            reader.close()


@pytest.mark.parametrize("at", range(-4, 5))
@pytest.mark.parametrize("odd", [b'x, "y"\n', b'"x" ,y\n', b"x,y,\n", b"x,y,\r\n", b"x\ry\n", b"x,y\r\n", b"x,\0\n"])
def test_what_the_engine_reads_otherwise_is_seen_across_blocks(odd: bytes, at: int) -> None:
    line = b"a,b\n"
    before = line * ((1 << 20) // len(line) - 2) + b"c" * (5 + at) + b",\n"[:1]
    assert is_plain(io.BytesIO(before + b"d\n" + line), ",")
    assert not is_plain(io.BytesIO(before + b"d\n" + odd + line), ",")
    assert not is_plain(io.BytesIO(before + odd + line), ",")


@pytest.mark.parametrize("rest", [1, 2, 1_000])
def test_E9_a_quoted_field_that_never_ends_takes_no_row_with_it(tmp_path: Path, rest: int) -> None:
    """E9: also if the file is shorter than the longest row; on the last line it is one reject."""
    file = tmp_path / "u.csv"
    file.write_text('id,n\n1,a\n2,"b\n' + "3,c\n" * rest)
    with pytest.raises(StoreError, match=r"u\.csv, line 3: a quoted field is not closed properly"):
        open_reader(CollectionSpec("U", file, rejects=tmp_path / "bad.jsonl"))
    file.write_text('id,n\n1,a\n2,"b')
    with contextlib.closing(open_reader(CollectionSpec("U", file, rejects=tmp_path / "bad.jsonl"))) as reader:
        assert len(list(reader.rows())) == 1
        assert sum(reader.rejects.reasons.values()) == 1


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_E9_a_blank_line_is_no_row(tmp_path: Path, end: str, keeps: bool) -> None:
    file = tmp_path / "u.csv"
    file.write_bytes(end.join(["id", "1", "", "2", "", "", "3", ""]).encode())
    spec = CollectionSpec("U", file, rejects=tmp_path / "bad.jsonl" if keeps else None)
    with contextlib.closing(open_reader(spec)) as reader:
        assert [row for _, row in reader.rows()] == [("1",), ("2",), ("3",)]
        assert not reader.rejects.reasons


def test_a_quoted_field_that_never_ends_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of the next row is unknown: rows inside the text would become records."""
    monkeypatch.setattr(csv_rows, "MAX_ROW", 1_000)
    file = tmp_path / "u.csv"
    file.write_text('id,n\n1,a\n2,"b\n' + "3,c\n" * 1_000)
    with pytest.raises(StoreError, match=r"u\.csv, line 3: a quoted field is not closed properly"):
        open_reader(CollectionSpec("U", file, rejects=tmp_path / "bad.jsonl"))


@pytest.mark.parametrize("row", ['a, "b"', ' "a",b', 'a,  "b', 'a, "b""', '"x\ny", "b"', 'a, "'])
def test_E9_a_space_before_quotes_is_a_reject(row: str) -> None:
    """Python keeps the quotes as text, other programs remove them: the value would depend on the reader."""
    refused: list[tuple[int, str]] = []
    lines = io.BytesIO(f"{row}\nu2,c\n".encode())
    rows = list(copy_rows(lines, 2, ",", 2, "u.csv", lambda line, reason, *_: refused.append((line, reason))))
    assert rows == [b"u2,c\n"]
    assert refused == [(2, "a space before a quoted field")]


@pytest.mark.parametrize("block", range(1, 12))
@pytest.mark.parametrize(
    "odd", ['x§ "y"\n', '"x" §y\n', "x§y§\n", "x§y§\r\n", "x\ry\n", "x§y\r\n", "\n", "x§\0\n", "x§"]
)
def test_what_the_engine_reads_otherwise_is_seen_in_blocks_of_every_size(
    odd: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_copy, "_BLOCK", block)
    line = '"a"§b\n'
    assert is_plain(io.BytesIO((line * 4).encode()), "§")
    assert is_plain(io.BytesIO((line * 4).replace("\n", "\r\n").encode()), "§")
    assert not is_plain(io.BytesIO((line * 4 + odd).encode()), "§")
