"""Files in, files out: formats, encodings, types, dead letters, checkpoints."""

from __future__ import annotations

import contextlib
import csv
import datetime
import decimal
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich import MemorySource, ProfileClient
from profile_enrich.errors import (
    ConfigurationError,
    InputError,
    MissingExtraError,
    ProfileEnrichError,
    ProfileMissing,
    SourceAuthError,
    TooManyErrors,
)
from profile_enrich.pipeline.files import file_enrichment as files
from profile_enrich.pipeline.files import formats as _formats
from profile_enrich.pipeline.files import second_pass as _assembly
from profile_enrich.pipeline.files.column_types import alias, cell, json_text, notice, plain
from profile_enrich.pipeline.files.dry_run import Distinct, survey_file
from profile_enrich.pipeline.files.file_enrichment import FileProgress, FileReport, enrich_file
from profile_enrich.pipeline.files.readers import open_reader

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

PEOPLE: dict[str, dict[str, object]] = {
    "u1": {"tier": "gold", "ltv": 12.5, "name": 'Ada, "A"\r\né', "tags": ["a", "b"]},
    "u2": {"tier": "silver", "ltv": 3, "name": "Bob", "tags": []},
    "7": {"tier": "bronze", "ltv": None, "name": "Cy", "tags": None},
}
CSV = 'user_id,note\nu1,"x, ""y"""\nu9,\nu2,"007"\nu1,last'


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def client(people: dict[str, dict[str, object]] | None = None) -> ProfileClient:
    return ProfileClient(MemorySource(PEOPLE if people is None else people))


async def enrich(source: Path, target: Path, **options: Any) -> FileReport:
    options.setdefault("key", "user_id")
    options.setdefault("max_errors", 1.0)
    async with options.pop("client", None) or client() as profiles:
        return await enrich_file(source, target, client=profiles, **options)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- CSV --------------------------------------------------------------------------------------------------------------


async def test_E1_a_csv_keeps_its_text_its_order_and_its_columns(tmp_path: Path) -> None:
    """E1: n in, n out, in order. What was quoted stays quoted."""
    source = write(tmp_path / "in.csv", CSV)
    report = await enrich(source, tmp_path / "out.csv", fields=["tier", "name"])
    assert (tmp_path / "out.csv").read_bytes().decode() == (
        "user_id,note,profile_tier,profile_name\n"
        'u1,"x, ""y""",gold,"Ada, ""A""\r\né"\n'
        "u9,,,\n"
        'u2,"007",silver,Bob\n'
        'u1,last,gold,"Ada, ""A""\r\né"\n'
    )
    assert (report.rows, report.written, report.missing, report.calls) == (4, 4, 1, 3)
    assert left(tmp_path) == {"in.csv", "out.csv"}
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600


async def test_a_csv_without_named_fields_gets_all_that_came(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "user_id\r\nu2\r\nu9\r\nu1\r\n")
    people: dict[str, dict[str, object]] = {"u2": {"a": 1}, "u1": {"b": True, "a": "x"}}
    await enrich(source, tmp_path / "out.csv", client=client(people))
    assert (tmp_path / "out.csv").read_bytes() == (b"user_id,profile_a,profile_b\r\nu2,1,\r\nu9,,\r\nu1,x,true\r\n")


async def test_one_column_can_hold_the_whole_profile(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "user_id\nu1\nu9\n")
    await enrich(source, tmp_path / "out.csv", into="person", fields=["tags", "ltv"])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["person"] for row in rows] == ['{"tags": ["a", "b"], "ltv": 12.5}', ""]
    await enrich(write(tmp_path / "in.jsonl", '{"user_id": "u2"}\n{"user_id": "x"}\n'), tmp_path / "o.jsonl", into="p")
    assert lines(tmp_path / "o.jsonl") == [{"user_id": "u2", "p": PEOPLE["u2"]}, {"user_id": "x", "p": None}]


@pytest.mark.parametrize(
    ("encoding", "bytes_of"),
    [
        (None, lambda text: text.encode()),
        (None, lambda text: b"\xef\xbb\xbf" + text.encode()),
        ("utf-8", lambda text: b"\xef\xbb\xbf" + text.encode()),
        ("latin-1", lambda text: text.encode("latin-1")),
        (None, lambda text: b"\xff\xfe" + text.encode("utf-16-le")),
        ("utf-16", lambda text: b"\xfe\xff" + text.encode("utf-16-be")),
        ("utf-16", lambda text: text.encode("utf-16-le")),
        ("utf-16-be", lambda text: text.encode("utf-16-be")),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
async def test_encodings_and_line_ends_stay(tmp_path: Path, encoding: str | None, bytes_of: Any, end: str) -> None:
    source = write(tmp_path / "in.csv", bytes_of(f'user_id,ö{end}u1,"é{end}ü"{end}'))
    await enrich(source, tmp_path / "out.csv", fields=["name"], encoding=encoding)
    expected = f'user_id,ö,profile_name{end}u1,"é{end}ü","Ada, ""A""\r\né"{end}'
    assert (tmp_path / "out.csv").read_bytes() == bytes_of(expected)
    source = write(tmp_path / "in.jsonl", bytes_of(f'{{"user_id": "u1", "ö": 1.0}}{end}'))
    await enrich(source, tmp_path / "out.jsonl", fields=["tier"], encoding=encoding)
    assert (tmp_path / "out.jsonl").read_bytes() == bytes_of('{"user_id": "u1", "ö": 1.0, "profile_tier": "gold"}\n')


async def test_tabs_between_and_another_format_out(tmp_path: Path) -> None:
    source = write(tmp_path / "in.tsv", "user_id\tnote\nu1\ta,b\n")
    await enrich(source, tmp_path / "out.csv", fields=["tier"])
    assert (tmp_path / "out.csv").read_text() == 'user_id,note,profile_tier\nu1,"a,b",gold\n'
    await enrich(source, tmp_path / "out.jsonl", fields=["ltv"])
    assert lines(tmp_path / "out.jsonl") == [{"user_id": "u1", "note": "a,b", "profile_ltv": 12.5}]


async def test_gzip_in_and_out_is_the_same_each_time(tmp_path: Path) -> None:
    source = tmp_path / "in.csv.gz"
    source.write_bytes(gzip.compress(CSV.encode()))
    for name in ("a.csv.gz", "b.csv.gz"):
        await enrich(source, tmp_path / name, fields=["tier"])
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).splitlines()[1] == b'u1,"x, ""y""",gold'
    assert left(tmp_path) == {"in.csv.gz", "a.csv.gz", "b.csv.gz"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["u1", "u2", "u9", "7"]),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
            st.text(st.sampled_from('",;\r\n\t é'), max_size=6),
        ),
        max_size=8,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=25, deadline=None)
def test_E1_whatever_a_csv_holds_is_in_the_output_as_it_was(rows: list[tuple[str, str, str]], end: str) -> None:
    """E1: parsing the output gives the input's fields again, and the profile's after them."""
    import asyncio
    import tempfile

    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerows([("user_id", "a", "b"), *rows])
    text = buffer.getvalue() if end == "\r\n" else buffer.getvalue().replace("\r\n", "\n").replace("\r", "")
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder) / "in.csv", text)
        asyncio.run(enrich(source, Path(folder) / "out.csv", fields=["tier"]))
        with (Path(folder) / "out.csv").open(newline="", encoding="utf-8") as file:
            out = list(csv.reader(file))
    before = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[:3] for row in out] == before
    assert [row[3] for row in out[1:]] == [PEOPLE.get(row[0], {}).get("tier", "") for row in before[1:]]


# --- JSONL ------------------------------------------------------------------------------------------------------------


async def test_a_json_line_keeps_its_own_text(tmp_path: Path) -> None:
    odd = '{"user_id":"u1", "big": 12345678901234567890.10, "esc": "\\u00e9", "tier": 1, "tier": 2}'
    source = write(tmp_path / "in.jsonl", f'{odd}\n\n  {{"user_id": 7}}\n{{}}\n')
    report = await enrich(
        source, tmp_path / "out.ndjson", fields=["tier"], dead_letter=tmp_path / "bad.jsonl", prefix=""
    )
    out = (tmp_path / "out.ndjson").read_text().splitlines()
    assert out == [odd, '{"user_id": 7, "tier": "bronze"}', '{"tier": null}']
    assert (report.clashes, report.keyless) == ({"tier": 1}, 1)
    assert not (tmp_path / "bad.jsonl").exists()


async def test_a_lone_surrogate_and_an_encoding_without_the_character_stay_json(tmp_path: Path) -> None:
    people: dict[str, dict[str, object]] = {"u1": {"name": "\ud800"}, "u2": {"name": "日本"}}
    await enrich(write(tmp_path / "a.jsonl", '{"user_id": "u1"}\n'), tmp_path / "a2.jsonl", client=client(people))
    assert (tmp_path / "a2.jsonl").read_text() == '{"user_id": "u1", "profile_name": "\\ud800"}\n'
    source = write(tmp_path / "b.jsonl", '{"user_id": "u2", "é": 1}\n'.encode("latin-1"))
    await enrich(source, tmp_path / "b2.jsonl", client=client(people), encoding="latin-1")
    assert json.loads((tmp_path / "b2.jsonl").read_text("latin-1")) == {"user_id": "u2", "é": 1, "profile_name": "日本"}
    source = write(tmp_path / "c.csv", "user_id\nu2\nu1\nu9\n")
    report = await enrich(
        source,
        tmp_path / "c2.csv",
        client=client(people),
        encoding="latin-1",
        fields=["name"],
        dead_letter=tmp_path / "bad.jsonl",
    )
    assert (report.written, report.reasons) == (1, {"bad_encoding": 2})


# --- Parquet ----------------------------------------------------------------------------------------------------------


def table() -> Any:
    return pa.table(
        {
            "user_id": pa.array([7, 1, None, 7], pa.int32()),
            "at": pa.array([datetime.datetime(2026, 1, 2)] * 4, pa.timestamp("ns", "Europe/Paris")),
            "cat": pa.array(["x", "y", "x", None]).dictionary_encode(),
            "price": pa.array([decimal.Decimal(n) for n in (1, 2, 3, 4)], pa.decimal128(10, 2)),
            "list": pa.array([[1], [], None, [2, 3]], pa.list_(pa.int16())),
            "bin": pa.array([b"\0\xff"] * 4),
        }
    ).replace_schema_metadata({"made": "by us"})


async def test_parquet_keeps_types_and_gets_typed_columns(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "in.parquet", row_group_size=2, compression="zstd")
    people: dict[str, dict[str, object]] = {
        "7": {"n": 1, "x": 1, "flag": True, "mixed": 1, "obj": {"a": [1]}, "when": "2026-01-02", "huge": 2**70},
        "1": {"n": 2, "x": 2.5, "mixed": "a", "nothing": None},
    }
    report = await enrich(
        tmp_path / "in.parquet",
        tmp_path / "out.parquet",
        client=client(people),
        dead_letter=tmp_path / "bad.jsonl",
        on_missing="dead_letter",
    )
    assert (report.rows, report.written, report.reasons) == (4, 3, {"missing_key": 1})
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.select(table().column_names).equals(table().take([0, 1, 3]))
    assert out.schema.metadata[b"made"] == b"by us"
    types = {name.removeprefix("profile_"): str(out.schema.field(name).type) for name in out.column_names[6:]}
    assert types == {
        "n": "int64",
        "x": "double",
        "flag": "bool",
        "mixed": "string",
        "obj": "string",
        "when": "string",
        "huge": "string",
        "nothing": "string",
    }
    assert out["profile_x"].to_pylist() == [1.0, 2.5, 1.0]
    assert out["profile_obj"].to_pylist() == ['{"a": [1]}', None, '{"a": [1]}']
    assert out["profile_mixed"].to_pylist() == ["1", "a", "1"]
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    (bad,) = lines(tmp_path / "bad.jsonl")
    assert (bad["row"], bad["record"]["bin"], bad["record"]["price"]) == (3, "AP8=", "3.00")


async def test_declared_types_do_not_depend_on_the_values_and_refuse_what_does_not_fit(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"user_id": "a", "n": 1}\n{"user_id": "b"}\n{"user_id": "c", "m": [1]}\n')
    people: dict[str, dict[str, object]] = {"a": {"day": "2026-01-02", "n": None}, "c": {"day": "soon"}}
    types = {"day": "date32", "n": "int16"}
    report = await enrich(
        source, tmp_path / "o.parquet", client=client(people), fields=types, dead_letter=tmp_path / "bad.jsonl"
    )
    assert report.reasons == {"bad_attribute": 1}
    out = pq.read_table(tmp_path / "o.parquet")
    assert [(field.name, str(field.type)) for field in out.schema] == [
        ("user_id", "string"),
        ("n", "int64"),
        ("profile_day", "date32[day]"),
        ("profile_n", "int16"),
    ]
    assert out["profile_day"].to_pylist() == [datetime.date(2026, 1, 2), None]


async def test_parquet_becomes_lines_and_lines_become_parquet(tmp_path: Path) -> None:
    pq.write_table(table().slice(0, 2), tmp_path / "in.parquet")
    await enrich(tmp_path / "in.parquet", tmp_path / "out.jsonl", fields=["tier"])
    first = lines(tmp_path / "out.jsonl")[0]
    assert first["user_id"] == 7
    assert first["profile_tier"] == "bronze"
    assert first["at"].startswith("2026-01-02T")
    assert (first["price"], first["list"], first["bin"]) == ("1.00", [1], "AP8=")
    await enrich(tmp_path / "in.parquet", tmp_path / "out.csv", fields=["tier"])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [(row["user_id"], row["list"], row["profile_tier"]) for row in rows] == [
        ("7", "[1]", "bronze"),
        ("1", "[]", ""),
    ]
    await enrich(write(tmp_path / "in.csv", "user_id,n\nu1,1\n"), tmp_path / "o2.parquet", fields=["ltv"])
    assert pq.read_table(tmp_path / "o2.parquet").to_pylist() == [{"user_id": "u1", "n": "1", "profile_ltv": 12.5}]
    source = write(tmp_path / "in.jsonl", '{"user_id": "u1", "profile_tier": 1}\n{"user_id": "u2", "é": [1]}\n')
    report = await enrich(source, tmp_path / "o3.csv", fields=["tier", "ltv"])
    assert report.clashes == {"profile_tier": 2}
    assert (tmp_path / "o3.csv").read_text() == "user_id,profile_tier,é,profile_ltv\nu1,1,,12.5\nu2,,[1],3\n"


async def test_nothing_in_is_nothing_out(tmp_path: Path) -> None:
    await enrich(write(tmp_path / "in.jsonl", ""), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    await enrich(write(tmp_path / "in.csv", "user_id\n"), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").schema.names == ["user_id"]
    pq.write_table(table().slice(0, 0), tmp_path / "in.parquet")
    await enrich(tmp_path / "in.parquet", tmp_path / "o.parquet", fields={"tier": "string"})
    assert pq.read_table(tmp_path / "o.parquet").schema.names == [*table().column_names, "profile_tier"]


async def test_without_pyarrow_parquet_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[arrow\]") as caught:
        await enrich(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert caught.value.__context__ is None


# --- what is wrong with records ---------------------------------------------------------------------------------------

BAD_CSV = 'user_id,a\nu1,1\nu2\nu1,"x"y\nu2,2,3\n,5\nu1,\0\nu2,ok\n'


async def test_E1_each_record_is_in_the_output_or_in_the_dead_letters(tmp_path: Path) -> None:
    """E1: nothing lost: a stated reason for each record that is not in the output, with its place."""
    source = write(tmp_path / "in.csv", BAD_CSV)
    bad = tmp_path / "bad.jsonl"
    report = await enrich(source, tmp_path / "out.csv", fields=["tier"], dead_letter=bad, on_missing="dead_letter")
    assert (tmp_path / "out.csv").read_text() == "user_id,a,profile_tier\nu1,1,gold\nu2,ok,silver\n"
    letters = lines(bad)
    assert [(each["row"], each["line"], each["reason"], each["detail"]) for each in letters] == [
        (2, 3, "bad_input", "1 fields instead of 2"),
        (3, 4, "bad_input", "not CSV: a quote stands where none can be"),
        (4, 5, "bad_input", "3 fields instead of 2"),
        (5, 6, "missing_key", "the record has no key: the field is null or empty"),
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
            "in.csv, line 3: 1 fields instead of 2. Mend it, or keep such records in a dead letter file",
        ),
        (
            "in.csv",
            b"user_id,a\nu1,1\nu1,\xe9\n",
            "in.csv, line 3: not utf-8; say how the file is written, e.g. latin-1",
        ),
        ("in.csv", b"\xff\xfe" + "user_id\nu".encode("utf-16-le") + b"\x00", "in.csv, line 2: not utf-16-le"),
        ("in.csv", 'user_id\nu1\n"u2\nu1\n', "line 3: a quote is opened and not closed, or a field is over 128 KiB"),
        ("in.csv", "", "line 1: there is no header line"),
        ("in.csv", '"a"b\n', "line 1: the header is not CSV"),
        ("in.csv", "user_id,a,a\n", "line 1: the column 'a' is there twice"),
        ("in.jsonl", '{"user_id": "u1"}\n{"user_id": "sec', "in.jsonl, line 2: not JSON"),
        ("in.jsonl", '["sec"]\n', "in.jsonl, line 1: JSON, but no object"),
        ("in.jsonl", b'{"user_id": "\xff"}\n', "in.jsonl, line 1: not utf-8"),
        ("in.parquet", "PAR1 no", "in.parquet: it is not there, or no Parquet file"),
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
    with pytest.raises(ProfileMissing, match="line 1: the source has no profile"):
        await enrich(source, tmp_path / "o.jsonl", on_missing="raise", dead_letter=tmp_path / "bad.jsonl")


async def test_too_many_failures_end_the_run(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"user_id": "u1"}\n' * 30 + "bad\n" * 3)
    options: dict[str, Any] = {"fields": ["tier"], "dead_letter": tmp_path / "bad.jsonl", "force": True}
    with pytest.raises(TooManyErrors, match="3 of 33 records failed, and max_errors allows 2"):
        await enrich(source, tmp_path / "a.jsonl", **options, max_errors=2)
    with pytest.raises(TooManyErrors, match=r"3 of 33 records failed, and max_errors allows 0\.25% of at least 1,000"):
        await enrich(source, tmp_path / "a.jsonl", **options, max_errors=0.0025)
    report = await enrich(source, tmp_path / "a.jsonl", **options, max_errors=3)
    assert (report.written, report.dead) == (30, 3)


# --- whole or not at all, and on again --------------------------------------------------------------------------------


class Crash(Exception):
    """Stands for what nobody expects."""


def crash_at(rows: int) -> Any:
    def look(now: FileProgress) -> None:
        if now.rows >= rows:
            raise Crash

    return look


def many(count: int) -> str:
    """Known, unknown and missing keys, and rows that are too short."""
    ids = ["u1", "u2", "u9", "7", ""]
    return "user_id,n\n" + "".join(f"{ids[n * n % 5]},{n}\n" if n % 7 else "short\n" for n in range(count))


@pytest.fixture
def _told_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TELL", 0.0)


@pytest.mark.usefixtures("_told_each_record")
@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet", "all.csv", "out.csv.gz"])
@pytest.mark.parametrize("every", [1, 7, 1000])
async def test_E1_gone_on_with_it_is_the_same_bytes(
    tmp_path: Path, name: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1: a crash at any record, twice, and again while the whole output is made: nothing lost, nothing doubled."""
    monkeypatch.setattr(_assembly, "GROUP", 32)
    source = write(tmp_path / "in.csv", many(120))
    fields = None if name == "all.csv" else ["tier", "ltv"]
    whole, bad = tmp_path / f"whole-{name}", tmp_path / "whole.bad"
    await enrich(source, whole, fields=fields, dead_letter=bad)
    again: dict[str, Any] = {"fields": fields, "dead_letter": tmp_path / "bad", "checkpoint_rows": every}
    for number, at in enumerate((40, 41, 85, 119)):
        with pytest.raises(Crash):
            await enrich(source, tmp_path / name, resume=number > 0, progress=crash_at(at), **again)
        assert not (tmp_path / name).exists()
        with (tmp_path / f"{name}.part").open("ab") as part:
            part.write(b"what was written after the checkpoint")  # a kill -9 saves none
    report = await enrich(source, tmp_path / name, resume=True, **again)
    assert (tmp_path / name).read_bytes() == whole.read_bytes()
    assert (tmp_path / "bad").read_bytes() == bad.read_bytes()
    assert (report.rows, report.written + report.dead, report.resumed) == (120, 120, 119)
    assert left(tmp_path) == {"in.csv", name, f"whole-{name}", "whole.bad", "bad"}


@pytest.mark.parametrize("name", ["out.parquet", "out.csv.gz", "out.csv"])
@pytest.mark.parametrize("step", range(12))
async def test_E1_killed_while_the_files_are_put_in_place_it_can_be_done_again(
    tmp_path: Path, name: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1: whichever rename is the last one that happens."""
    source = write(tmp_path / "in.csv", many(50))
    await enrich(source, tmp_path / f"w-{name}", fields=["tier"], dead_letter=tmp_path / "w.bad")
    done = 0
    for method in ("replace", "unlink"):
        original = getattr(Path, method)

        def stop(path: Path, *given: Any, _original: Any = original, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done > step:
                raise Crash
            return _original(path, *given, **named)

        monkeypatch.setattr(Path, method, stop)
    options: dict[str, Any] = {"fields": ["tier"], "dead_letter": tmp_path / "bad"}
    try:
        await enrich(source, tmp_path / name, **options)
        crashed = False
    except Crash:
        crashed = True
    monkeypatch.undo()
    if crashed and (tmp_path / f"{name}.resume").exists():
        await enrich(source, tmp_path / name, resume=True, **options)
    elif crashed:
        await enrich(source, tmp_path / name, force=True, **options)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"w-{name}").read_bytes()
    assert (tmp_path / "bad").read_bytes() == (tmp_path / "w.bad").read_bytes()
    stale = {f"{name}.resume.new", f"{name}.making", f"{name}.packing"}
    assert left(tmp_path) - stale == {"in.csv", name, f"w-{name}", "bad", "w.bad"}


async def test_E1_a_checkpoint_counts_only_what_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E1: the output and the dead letters are on the disk before the note that counts them takes its place."""
    done: list[str] = []
    original = Path.replace

    def sync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def replace(path: Path, target: Path) -> Path:
        done.append(f"{target.name} <-")
        return original(path, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not say which file a descriptor is of")
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    source = write(tmp_path / "in.csv", "user_id\nu1\nu1,\n")
    await enrich(source, tmp_path / "out.csv", fields=["tier"], dead_letter=tmp_path / "bad", checkpoint_rows=99)
    one = ["out.csv.part", "bad.part", "out.csv.resume.new", "out.csv.resume <-", tmp_path.name]
    assert done == [*one, *one, "bad <-", tmp_path.name, "out.csv <-", tmp_path.name]


@pytest.mark.usefixtures("_told_each_record")
async def test_what_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", many(40)), tmp_path / "out.csv"
    same: dict[str, Any] = {"fields": ["tier"], "dead_letter": tmp_path / "bad"}
    with pytest.raises(Crash):
        await enrich(source, target, progress=crash_at(20), **same)
    for change, named in (
        ({"fields": ["ltv"]}, "fields"),
        ({"prefix": "p_"}, "columns"),
        ({"key": "n"}, "key"),
        ({"on_missing": "drop"}, "what becomes of missing profiles"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"dead_letter": tmp_path / "other"}, "dead letters"),
    ):
        with pytest.raises(ConfigurationError, match=named):
            await enrich(source, target, resume=True, **{**same, **change})
    with pytest.raises(ConfigurationError, match=r"a run to .* was interrupted; --resume goes on with it"):
        await enrich(source, target, **same)
    os.utime(source, (1, 1))
    with pytest.raises(ConfigurationError, match="the input's time changed"):
        await enrich(source, target, resume=True, **same)
    write(source, many(41))
    with pytest.raises(ConfigurationError, match="the input's size, the input's time, the input's content changed"):
        await enrich(source, target, resume=True, **same)
    assert (await enrich(source, target, force=True, **same)).rows == 41


@pytest.mark.usefixtures("_told_each_record")
async def test_dead_letters_can_be_asked_for_when_the_first_record_fails(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "user_id\nu1\n\nu1,\nu2\n")
    with pytest.raises(InputError, match="line 4"):
        await enrich(source, tmp_path / "out.csv", fields=["tier"])
    report = await enrich(source, tmp_path / "out.csv", fields=["tier"], resume=True, dead_letter=tmp_path / "bad")
    assert (report.rows, report.resumed, report.dead) == (3, 1, 1)
    assert (tmp_path / "out.csv").read_text() == "user_id,profile_tier\nu1,gold\nu2,silver\n"


async def test_damaged_notes_and_parts_are_refused(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", many(9)), tmp_path / "out.csv"
    with pytest.raises(ConfigurationError, match=r"there is no interrupted run to .*; leave --resume out"):
        await enrich(source, target, fields=["tier"], resume=True)
    notes = tmp_path / "out.csv.resume"
    with pytest.raises(InputError):
        await enrich(source, target, fields=["tier"])
    good = notes.read_text()
    for damaged in ("", "{}", '{"version": 1, "state": {"x": 1}, "job": {}}', '{"version": 1, "state": {}, "job": 1}'):
        notes.write_text(damaged)
        with pytest.raises(ConfigurationError, match="cannot be used; begin anew with --force"):
            await enrich(source, target, fields=["tier"], resume=True)
    notes.write_text(good.replace('"size": ', '"size": 9'))
    with pytest.raises(ConfigurationError, match="is shorter than its checkpoint says"):
        await enrich(source, target, fields=["tier"], resume=True)


async def test_files_that_are_there_are_not_destroyed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"user_id": "u1"}\n')
    target, bad = write(tmp_path / "out.jsonl", "mine"), write(tmp_path / "bad", "mine")
    for options in ({}, {"dead_letter": bad}):
        with pytest.raises(ConfigurationError, match="is there already; say --force to replace it"):
            await enrich(source, target, **options)
    assert target.read_text() == bad.read_text() == "mine"
    await enrich(source, target, dead_letter=bad, force=True, fields=["tier"])
    assert lines(target) == [{"user_id": "u1", "profile_tier": "gold"}]
    assert not bad.exists()  # of an earlier run: this one has none


async def test_two_runs_do_not_write_the_same_file(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    source = write(tmp_path / "in.jsonl", '{"user_id": "u1"}\n')
    for name in ("out.jsonl.part", "bad.part"):
        with (tmp_path / name).open("wb") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            with pytest.raises(ConfigurationError, match="another run writes"):
                await enrich(source, tmp_path / "out.jsonl", dead_letter=tmp_path / "bad", force=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, "key must name the column"),
        ({"key": "nope"}, "no column 'nope'; it has user_id, n"),
        ({"fields": "tier"}, "fields must be a list of attributes"),
        ({"fields": []}, "fields must name at least one"),
        ({"fields": {"tier": "string"}}, "types of fields are for the columns of a Parquet file"),
        ({"into": ""}, "into must be the name of a column"),
        ({"on_missing": "no"}, "on_missing must be"),
        ({"on_missing": "dead_letter"}, "needs a dead_letter file"),
        ({"max_errors": -1}, "max_errors must be"),
        ({"max_errors": 1.5}, "max_errors as a fraction must be at most"),
        ({"encoding": "no-such"}, "encoding must be"),
        ({"encoding": "base64"}, "encoding must be"),
        ({"encoding": "utf-32"}, "encoding must be"),
        ({"window": 0}, "window must be"),
        ({"checkpoint_rows": 0}, "checkpoint_rows must be"),
        ({"source": "-", "source_format": "csv"}, "the input is read twice"),
        ({"source": "-", "source_format": "csv", "fields": ["a"], "resume": True}, "only a run from a file to a file"),
        ({"source": "-"}, "does not say whether it is CSV, JSONL or Parquet"),
        ({"source": "-", "source_format": "parquet"}, "Parquet cannot be in standard input"),
        ({"target": "x.parquet.gz"}, "Parquet cannot be in a .gz file"),
        ({"target": "out.txt"}, "the output: its name does not say"),
        ({"target": "in.csv"}, "must be different files"),
        ({"target": "no/out.csv"}, "the folder .* is not there"),
        ({"fields": {"a": "nope"}, "target": "o.parquet"}, "the type of 'profile_a' must be"),
    ],
)
async def test_wrong_arguments_are_named(
    tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.csv", many(2))
    given = {"source": "in.csv", "target": "out.csv", **options}
    with pytest.raises(ConfigurationError, match=message):
        await enrich(given.pop("source"), given.pop("target"), **given)
    assert left(tmp_path) == {"in.csv"}


async def test_an_input_that_is_not_there_or_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="No such file"):
        await enrich(tmp_path / "none.csv", tmp_path / "out.csv", fields=["tier"])
    for name, good in (("in.csv", many(6)), ("in.parquet", "")):
        source = write(tmp_path / name, good)
        if name == "in.parquet":
            pq.write_table(table().slice(0, 2), source)
        reader = open_reader(_formats.FileSpec.of(source), "user_id")
        with contextlib.closing(reader), pytest.raises(InputError, match="the input became shorter"):
            _assembly.assemble(
                reader,
                write(tmp_path / "journal", "[1, {}]\n[99, {}]\n"),
                tmp_path / "x.parquet",
                _formats.FileSpec.of("x.parquet"),
                kinds={},
                read_kinds={},
                declared=None,
            )


class Refusing(MemorySource):
    async def fetch(self, *given: Any, **named: Any) -> Any:
        raise SourceAuthError("refused", status=401)


async def test_refused_credentials_end_the_run_at_once(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", many(100))
    async with ProfileClient(Refusing({})) as profiles:
        with pytest.raises(SourceAuthError):
            await enrich_file(
                source, tmp_path / "o.csv", client=profiles, key="user_id", fields=["a"], dead_letter=tmp_path / "bad"
            )
    assert not (tmp_path / "bad").exists()


# --- small parts ------------------------------------------------------------------------------------------------------


def test_values_as_json_and_as_cells() -> None:
    assert plain(
        (
            1,
            {2: float("nan")},
            datetime.timedelta(days=1),
            {
                3,
            },
        )
    ) == [1, {"2": None}, "1 day, 0:00:00", "{3}"]
    assert [cell(value) for value in (None, "a", True, 1.5, float("inf"), [1], b"a")] == [
        "",
        "a",
        "true",
        "1.5",
        "",
        "[1]",
        "YQ==",
    ]
    assert json_text("é", ascii_only=True) == '"\\u00e9"'


@given(
    st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=2)), max_size=8),
    st.randoms(),
)
def test_the_kind_of_a_column_does_not_depend_on_the_order(values: list[Any], rng: Any) -> None:
    shuffled = list(values)
    rng.shuffle(shuffled)
    found: list[dict[str, str]] = [{}, {}]
    for kinds, order in zip(found, (values, shuffled), strict=True):
        for value in order:
            notice(kinds, {"a": value})
    assert found[0] == found[1]
    if {type(value) for value in values if value is not None} == {bool}:
        assert alias(found[0]["a"]) == "bool"


def test_different_keys_are_counted_in_bounded_memory() -> None:
    exact, rough = Distinct(), Distinct(most=1000)
    for number in range(30_000):
        exact.add(f"u{number % 20_000}")
        rough.add(f"u{number % 20_000}")
    assert (exact.count, exact.exact, rough.exact) == (20_000, True, False)
    assert len(rough._seen) <= 1000
    assert abs(rough.count - 20_000) < 3_000


def test_a_survey_asks_nobody(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl", '{"user_id": "a"}\n{"user_id": 1}\n{"user_id": 1.5}\n{}\nbad\n{"user_id": "1"}\n'
    )
    found = survey_file(source, key="user_id")
    assert (found.rows, found.distinct, found.unreadable, found.without_key, found.unusable) == (6, 2, 1, 1, 1)
    assert found.exact


def test_every_error_of_files_is_one_of_ours() -> None:
    assert issubclass(InputError, ProfileEnrichError)
    assert InputError.code == "bad_input"
