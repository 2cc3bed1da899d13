"""Invalid records and files: messages, dead letters, and how the run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profile_enrich.errors import InputError, ProfileMissing, TooManyErrors
from tests.helpers import NOT_STRICT
from tests.pipeline.file_helpers import enrich, lines, write

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

# --- invalid records --------------------------------------------------------------------------------------------------

BAD_CSV = 'user_id,a\nu1,1\nu2\nu1,"x"y\nu2,2,3\n,5\nu1,\0\nu2,ok\n'


async def test_E1_each_record_is_in_the_output_or_in_the_dead_letters(tmp_path: Path) -> None:
    """E1: each record that is not in the output has a dead letter with a reason and its position."""
    source = write(tmp_path / "in.csv", BAD_CSV)
    bad = tmp_path / "bad.jsonl"
    report = await enrich(source, tmp_path / "out.csv", fields=["tier"], dead_letter=bad, on_missing="dead_letter")
    assert (tmp_path / "out.csv").read_text() == "user_id,a,profile_tier\nu1,1,gold\nu2,ok,silver\n"
    letters = lines(bad)
    assert [(each["row"], each["line"], each["reason"], each["detail"]) for each in letters] == [
        (2, 3, "bad_input", "1 fields instead of 2"),
        (3, 4, "bad_input", "not CSV: a quote stands where none can be"),
        (4, 5, "bad_input", "3 fields instead of 2"),
        (5, 6, "missing_key", "the record has no key"),
        (6, 7, "bad_input", "a NUL byte"),
    ]
    assert [each["record"] for each in letters] == [
        ["u2"],
        'u1,"x"y',
        ["u2", "2", "3"],
        {"user_id": "", "a": "5"},
        ["u1", "\0"],
    ]
    assert (report.rows, report.written + report.dead) == (7, 7)
    assert bad.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "in.csv",
            BAD_CSV,
            "in.csv, line 3: 1 fields instead of 2. Fix it and start over, or pass dead_letter= to keep such records",
        ),
        (
            "in.csv",
            b"user_id,a\nu1,1\nu1,\xe9\n",
            "in.csv, line 3: not utf-8; pass the encoding of the file, e.g. encoding='cp1252' (Windows) or 'latin-1'",
        ),
        ("in.csv", b"\xff\xfe" + "user_id\nu".encode("utf-16-le") + b"\x00", "in.csv, line 2: not utf-16-le"),
        ("in.csv", 'user_id\nu1\n"u2\nu1\n', "line 3: a quote is opened and not closed, or a field is over 128 KiB"),
        ("in.csv", "", "line 1: there is no header line"),
        ("in.csv", '"a"b\n', "line 1: the header is not CSV"),
        ("in.csv", "user_id,a,a\n", "line 1: the column 'a' is there twice"),
        ("in.jsonl", '{"user_id": "u1"}\n{"user_id": "sec', "in.jsonl, line 2: not JSON"),
        ("in.jsonl", '["sec"]\n', "in.jsonl, line 1: JSON, but no object"),
        ("in.jsonl", b'{"user_id": "\xff"}\n', "in.jsonl, line 1: not utf-8"),
        ("in.parquet", "PAR1 no", "in.parquet: it is no Parquet file, or damaged"),
    ],
)
async def test_bad_input_says_where_and_never_what(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    source = write(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        await enrich(source, tmp_path / "out.jsonl")
    assert message in str(caught.value)
    assert "sec" not in str(caught.value).replace("second", "")
    assert caught.value.__context__ is None
    assert not (tmp_path / "out.jsonl").exists()


async def test_bad_json_and_bad_bytes_are_dead_letters_of_their_own_line(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", b'{"user_id": "u1"}\n{bad\n{"user_id": "\xff"}\n' + b"[" * 100_000 + b"\n1\n")
    report = await enrich(source, tmp_path / "out.jsonl", fields=["tier"], dead_letter=tmp_path / "bad.jsonl")
    assert report.reasons == {"bad_input": 4}
    letters = lines(tmp_path / "bad.jsonl")
    assert [each["record"] for each in letters if len(str(each["record"])) < 99] == [
        "{bad",
        '{"user_id": "\\xff"}',
        "1",
    ]


async def test_E9_json_that_only_python_reads_is_a_dead_letter(tmp_path: Path) -> None:
    """E9: the line would be copied unchanged, and programs would read it differently."""
    content = "".join(f"{line}\n" for line in (*NOT_STRICT, '{"user_id": "u1", "n": 1e5}'))
    source = write(tmp_path / "in.jsonl", content)
    report = await enrich(source, tmp_path / "out.jsonl", fields=["tier"], dead_letter=tmp_path / "bad.jsonl")
    assert report.reasons == {"bad_input": len(NOT_STRICT)}
    assert [each["n"] for each in lines(tmp_path / "out.jsonl")] == [1e5]


async def test_a_field_that_never_ends_ends_the_run(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "user_id\n" + 'u1,"' + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match="line 2: a quote is opened and not closed, or a field is over 128 KiB"):
        await enrich(source, tmp_path / "out.csv", fields=["tier"], dead_letter=tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("how", "rows", "dead"), [("null", ["u1", "u9"], []), ("drop", ["u1"], []), ("dead_letter", ["u1"], ["not_found"])]
)
async def test_what_becomes_of_a_missing_profile_is_chosen(
    tmp_path: Path, how: Any, rows: list[str], dead: list[str]
) -> None:
    source = write(tmp_path / "in.jsonl", '{"user_id": "u1"}\n{"user_id": "u9"}\n')
    bad = tmp_path / "bad.jsonl"
    report = await enrich(
        source, tmp_path / "out.jsonl", fields=["tier"], on_missing=how, dead_letter=bad, max_errors=0
    )
    assert [row["user_id"] for row in lines(tmp_path / "out.jsonl")] == rows
    assert [each["reason"] for each in (lines(bad) if bad.exists() else [])] == dead
    assert report.rows == report.written + report.dropped + report.dead == 2
    assert report.missing == 1


async def test_a_missing_profile_can_end_the_run(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"user_id": "u9"}\n')
    with pytest.raises(ProfileMissing, match="line 1: the source has no such profile"):
        await enrich(source, tmp_path / "o.jsonl", on_missing="raise", dead_letter=tmp_path / "bad.jsonl")


async def test_too_many_failures_end_the_run(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"user_id": "u1"}\n' * 30 + "bad\n" * 3)
    options: dict[str, Any] = {"fields": ["tier"], "dead_letter": tmp_path / "bad.jsonl", "force": True}
    with pytest.raises(TooManyErrors, match=r"3 of 33 records failed \(bad_input 3\), and max_errors allows 2"):
        await enrich(source, tmp_path / "a.jsonl", **options, max_errors=2)
    with pytest.raises(TooManyErrors, match=r"\(bad_input 3\), and max_errors allows 0\.25% of at least 1,000"):
        await enrich(source, tmp_path / "a.jsonl", **options, max_errors=0.0025)
    report = await enrich(source, tmp_path / "a.jsonl", **options, max_errors=3)
    assert (report.written, report.dead) == (30, 3)
