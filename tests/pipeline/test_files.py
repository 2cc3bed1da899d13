"""Files in, files out: formats, encodings, types, small parts."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.errors import InputError, MissingExtraError, ProfileEnrichError
from profile_enrich.pipeline.files.column_types import alias, cell, json_text, notice, plain
from profile_enrich.pipeline.files.dry_run import Distinct, survey_file
from tests.pipeline.file_helpers import CSV, PEOPLE, client, enrich, left, lines, write

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

# --- CSV --------------------------------------------------------------------------------------------------------------


async def test_E1_a_csv_keeps_its_text_its_order_and_its_columns(tmp_path: Path) -> None:
    """E1: n in, n out, in order. Quoted fields stay quoted."""
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
    """E1: parsing the output gives the input's fields, followed by the profile's."""
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
    odd = '{"user_id":"u1", "big": 12345678901234567890.10, "esc": "\\u00e9", "tier": 1}'
    source = write(tmp_path / "in.jsonl", f'{odd}\n\n  {{"user_id": 7}}\n{{}}\n')
    report = await enrich(
        source, tmp_path / "out.ndjson", fields=["tier"], dead_letter=tmp_path / "bad.jsonl", prefix=""
    )
    out = (tmp_path / "out.ndjson").read_text().splitlines()
    assert out == [odd, '{"user_id": 7, "tier": "bronze"}', '{"tier": null}']
    assert (report.clashes, report.keyless) == ({"tier": 1}, 1)
    assert not (tmp_path / "bad.jsonl").exists()


async def test_a_number_with_more_digits_than_a_float_has_keeps_them(tmp_path: Path) -> None:
    """CSV keeps its digits; in Parquet its column is text. A float with all its digits stays a float."""
    source = write(
        tmp_path / "in.jsonl",
        '{"user_id": "u1", "big": 1610521604143693812.5, "f": 0.10000000000000001, "in": [0.1234567890123456789]}\n'
        '{"user_id": "u1", "big": 1.5, "f": 1e-7, "in": null}\n',
    )
    await enrich(source, tmp_path / "out.csv", fields=["tier"], prefix="")
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row[1:3] for row in rows[1:]] == [["1610521604143693812.5", "0.1"], ["1.5", "1e-07"]]
    assert "0.1234567890123456789" in rows[1][3]
    await enrich(source, tmp_path / "out.parquet", fields=["tier"], prefix="")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["big"].to_pylist() == ["1610521604143693812.5", "1.5"]
    assert table["f"].to_pylist() == [0.1, 1e-7]


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
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[arrow\]") as caught:
        await enrich(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert caught.value.__context__ is None


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
