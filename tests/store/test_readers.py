"""Readers of CSV, TSV, JSONL and Parquet files, valid and invalid."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError, MissingExtraError, StoreError
from profile_enrich.store import (
    CollectionReport,
    CollectionSpec,
    LocalStore,
    RefreshSpec,
    build_store,
    refresh_store,
)
from profile_enrich.store.files.row_encoder import RowRejected
from profile_enrich.store.inputs.select_reader import open_reader
from tests.helpers import NOT_STRICT


def load(path: Path, **options: Any) -> tuple[CollectionReport, dict[str, dict[str, Any]]]:
    """The report, and all records by key."""
    store_path = path.parent / "store"
    report = build_store(store_path, [CollectionSpec("Users", path, **options)]).collections[0]
    with LocalStore(store_path) as store:
        page = store.page("Users", limit=1000, dialect="census")
        records = [json.loads(payload)["data"] for payload in page.payloads]
    return report, {str(record[report.collection.key]): record for record in records}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_types_are_only_found_where_nothing_is_lost(tmp_path: Path) -> None:
    """`02134` and `1e3` stay text: a number would change the text. Empty is null, quoted empty is text."""
    file = write(
        tmp_path / "users.csv",
        "id,zip,n,price,active,card,mixed,sci,empty,plus,note\n"
        '007,02134,5,12.5,true,1234567890123456,1,1e3,,+1,""\n'
        '8,10000,-6,3,false,1234567890123457,x,2.5,,+2,"a ""b"", c\nd"\n'
        "9,,,,,,,,,,\n",
    )
    report, records = load(file)
    assert report.read == 3
    assert records["007"] == {
        "id": "007",
        "zip": "02134",
        "n": 5,
        "price": 12.5,
        "active": True,
        "card": "1234567890123456",
        "mixed": "1",
        "sci": "1e3",
        "empty": None,
        "plus": "+1",
        "note": "",
    }
    assert records["8"]["active"] is False
    assert records["8"]["note"] == 'a "b", c\nd'
    assert set(records["9"].values()) == {"9", None}
    kinds = {column.name: column.type for column in report.collection.columns}
    assert kinds["n"] == "integer"
    assert kinds["price"] == "number"
    assert kinds["active"] == "boolean"
    assert {kinds[name] for name in ("id", "zip", "card", "mixed", "sci", "empty", "plus", "note")} == {"text"}


def test_csv_filters_compare_what_the_amperity_view_shows(tmp_path: Path) -> None:
    file = write(tmp_path / "u.csv", "id,price,active\n1,12.50,True\n2,12.5,False\n")
    build_store(
        tmp_path / "s", [CollectionSpec("U", file, filterable=["price", "active", "id"], types={"active": "boolean"})]
    )
    with LocalStore(tmp_path / "s") as store:
        assert [record.id for record in store.search("U", {"price": "12.50"})] == ["1"]
        assert [record.id for record in store.search("U", {"active": "true"})] == ["1"]
        assert store.search("U", {"active": "True"}) == []
        assert [record.id for record in store.search("U", {"id": "2", "active": "false"})] == ["2"]
        assert store.search("U", {"id": "2", "active": "true"}) == []
        assert store.search("U", {"id": "3"}) == []


def test_csv_types_can_be_said(tmp_path: Path) -> None:
    file = write(tmp_path / "u.csv", "id,phone,n,none\n1,4917,5,\n2,4918,6,\n")
    _, records = load(file, types={"phone": "text", "n": "number", "none": "integer"})
    assert records["1"] == {"id": "1", "phone": "4917", "n": 5, "none": None}
    with pytest.raises(StoreError, match="column 'n' cannot be read as boolean") as caught:
        load(file, types={"n": "boolean"})
    assert caught.value.__context__ is None
    with pytest.raises(ConfigurationError, match="there are text, integer, number and boolean"):
        load(file, types={"n": "json"})
    with pytest.raises(StoreError, match=r"no column 'x' \(types\)"):
        load(file, types={"x": "text"})


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiter_is_found_or_said(tmp_path: Path, delimiter: str) -> None:
    text = "id,name\n1,Ann\n".replace(",", delimiter)
    assert load(write(tmp_path / "u.csv", text))[1] == {"1": {"id": "1", "name": "Ann"}}
    assert load(write(tmp_path / "u.csv", text), delimiter=delimiter)[1] == {"1": {"id": "1", "name": "Ann"}}


def test_tsv_gzip_bom_odd_names_and_case(tmp_path: Path) -> None:
    assert load(write(tmp_path / "u.tsv", "id\tname,x\n1\tA,b\n"))[1] == {"1": {"id": "1", "name,x": "A,b"}}
    packed = write(tmp_path / "u.csv.gz", gzip.compress("id,näme\n1,é\n".encode()))
    assert load(packed)[1] == {"1": {"id": "1", "näme": "é"}}
    with_bom = write(tmp_path / "b[1]*.csv", b'\xef\xbb\xbfid,ID,"a""b"\r\n1,2,3\r\n')
    assert load(with_bom)[1] == {"1": {"id": "1", "ID": 2, 'a"b': 3}}
    assert load(write(tmp_path / "one.csv", "id\n1\n2\n"))[1] == {"1": {"id": "1"}, "2": {"id": "2"}}


def test_csv_line_ends(tmp_path: Path) -> None:
    """Line endings may be mixed. CR alone is refused, also by `enrich_file`."""
    for first, second in itertools.product(("\n", "\r\n"), repeat=2):
        found = load(write(tmp_path / "u.csv", f"id,n{first}1,a{second}2,b{first}"))[1]
        assert found["2"] == {"id": "2", "n": "b"}
    for text in ("id,n\r1,a\r2,b\r", 'id,n\r"1","a"\r', "id\r1"):
        with pytest.raises(StoreError, match=r"u\.csv: its lines end in CR alone; convert them first"):
            load(write(tmp_path / "u.csv", text))


def test_csv_in_other_encodings(tmp_path: Path) -> None:
    latin = write(tmp_path / "l.csv", "id,n\n1,é\n".encode("latin-1"))
    assert load(latin, encoding="latin-1")[1]["1"]["n"] == "é"
    wide = write(tmp_path / "w.csv", "id,n\n1,é\n".encode("utf-16"))
    assert load(wide, encoding="utf-16")[1]["1"]["n"] == "é"


@pytest.mark.parametrize("name", ["u.csv", "u.jsonl", "u.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("cp1252", "cp1252"),
        ("latin-1", "ISO-8859-1"),
        ("cp1251", "windows-1251"),
        ("koi8-r", "koi8-r"),
        ("shift_jis", "shift_jis"),
        ("gb18030", "gb18030"),
        ("utf-16", "utf-8"),  # its byte order mark gives the encoding
        ("utf-16", "UTF16"),
        ("utf-16-be", "utf-16-be"),
        ("utf-16-le", "utf-16"),
        ("utf-8-sig", "utf-8"),
    ],
)
def test_E9_every_text_encoding_is_read(tmp_path: Path, name: str, end: str, encoding: str, said: str) -> None:
    """E9: each character of an encoding is decoded correctly, also the euro sign of cp1252."""
    characters = ""
    for number in [*range(0xA1, 0x250), *range(0x400, 0x460), 0x20AC, *range(0x3041, 0x3090)]:
        with contextlib.suppress(UnicodeEncodeError):
            if chr(number).encode(encoding).decode(encoding) == chr(number):  # not the yen sign of shift_jis
                characters += chr(number)
    lines = [f'{{"id": "1", "n": "{characters}"}}'] if "json" in name else ["id,n", f"1,{characters}"]
    content = "".join(line + end for line in lines).encode(encoding)
    found = load(write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content), encoding=said)[1]
    assert found["1"]["n"] == characters


@pytest.mark.parametrize("name", ["u.csv", "u.jsonl"])
@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("utf-16-le", "utf-8", "is it UTF-16\\? Then pass encoding='utf-16-le'"),
        ("utf-16-be", "utf-8", "is it UTF-16\\? Then pass encoding='utf-16-be'"),
        ("utf-16-be", "cp1252", "is it UTF-16\\? Then pass encoding='utf-16-be'"),
        ("cp1252", "utf-8", "line 3: not valid UTF-8; pass encoding='cp1252'"),
        ("cp1252", "shift_jis", "line 3: not valid SHIFT_JIS"),
        ("cp1252", "ascii", "line 3: not valid ASCII"),
        ("utf-8", "utf-9", "is not a text encoding"),
        ("utf-8", "base64", "is not a text encoding"),
    ],
)
def test_E9_a_wrong_encoding_is_said_with_its_line(
    tmp_path: Path, name: str, content: str, encoding: str, message: str
) -> None:
    """E9: the error names the file, the line and the remedy."""
    lines = ['{"id": "1"}', '{"id": "2"}', '{"id": "ÿ\xff"}'] if "json" in name else ["id,n", "1,a", "2,ÿÿ", "3,b"]
    source = write(tmp_path / name, "".join(line + "\n" for line in lines).encode(content))
    with pytest.raises((StoreError, ConfigurationError), match=message):
        load(source, encoding=encoding)
    build_store(tmp_path / "other", [CollectionSpec("U", [{"id": "1", "n": None}])])
    with pytest.raises((StoreError, ConfigurationError), match=message):
        refresh_store(tmp_path / "other", [RefreshSpec("U", source, encoding=encoding)])


@pytest.mark.parametrize("name", ["u.csv", "u.jsonl"])
def test_E9_a_byte_order_mark_is_believed_before_another_encoding(tmp_path: Path, name: str) -> None:
    """E9: no column is called `ï»¿id`, and no character becomes two."""
    content = '{"id": "1", "n": "é"}\n' if "json" in name else "id,n\n1,é\n"
    assert load(write(tmp_path / name, content.encode("utf-8-sig")), encoding="latin-1")[1]["1"]["n"] == "é"


@pytest.mark.parametrize(
    ("head", "message"), [(b"PK\x03\x04", "a ZIP archive"), (b"\x1f\x8b\x08", "compressed with gzip")]
)
def test_E9_a_file_of_another_kind_is_named(tmp_path: Path, head: bytes, message: str) -> None:
    for name in ("u.csv", "u.jsonl"):
        with pytest.raises(StoreError, match=message):
            load(write(tmp_path / name, head + bytes(100)))


CONTENTS = {
    "csv": b'id,n,"a b"\n1,x,"y\nz"\n2,\xc3\xa9,""\n' * 3,
    "jsonl": b'{"id": "1", "n": [1, {"a": null}]}\n{"id": 2, "n": "\xc3\xa9"}\n' * 3,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["csv", "jsonl", "csv.gz", "jsonl.gz", "parquet"]),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.binary(max_size=3)), min_size=1, max_size=4),
    encoding=st.sampled_from(["utf-8", "utf-8", "cp1252", "utf-16"]),
    keeps=st.booleans(),
)
def test_E9_whatever_bytes_a_file_has_it_is_read_or_it_is_our_error(
    tmp_path: Path, kind: str, edits: list[tuple[float, bytes]], encoding: str, keeps: bool
) -> None:
    """E9: no library's exception and no hang, for any overwritten bytes."""
    source = tmp_path / f"u.{kind}"
    if kind == "parquet":
        duckdb.execute(f"COPY (SELECT 1 AS id, [1, 2] AS n) TO '{source}' (FORMAT parquet)")
        content = bytearray(source.read_bytes())
    else:
        plain = CONTENTS[kind.partition(".")[0]]
        content = bytearray(gzip.compress(plain) if kind.endswith("gz") else plain)
    for place, data in edits:
        at = int(place * len(content))
        content[at : at + len(data)] = data
    source.write_bytes(content)
    spec = CollectionSpec("U", source, encoding=encoding, rejects=tmp_path / "bad" if keeps else None)
    with contextlib.suppress(StoreError, ConfigurationError), contextlib.closing(open_reader(spec)) as reader:
        for _, values in reader.rows():
            with contextlib.suppress(RowRejected):
                reader.texts(values)


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("damage", ["changed", "cut", "shortened", "followed"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_E9_a_damaged_gzip_file_is_an_error(
    tmp_path: Path, suffix: str, damage: str, encoding: str, keeps: bool
) -> None:
    """E9: also a file that can be decompressed, but has a wrong checksum or length. No copy stays open."""
    line = b'{"id": "k%d"}\n' if suffix == "jsonl" else b"k%d\n"
    content = (b"" if suffix == "jsonl" else b"id\n") + b"".join(line % number for number in range(2000))
    whole = gzip.compress(content, compresslevel=0, mtime=0)
    packed = {
        "changed": whole.replace(b"k1500", b"kX500"),
        "cut": whole[:-8],
        "shortened": whole[: len(whole) // 2],
        "followed": whole + b"more",
    }[damage]
    file = write(tmp_path / f"u.{suffix}.gz", packed)
    with pytest.raises(StoreError, match=r"cannot be unpacked.*; is it whole"):
        load(file, encoding=encoding, rejects=tmp_path / "bad" if keeps else None)


def test_E9_a_byte_that_an_encoding_does_not_have_is_one_reject(tmp_path: Path) -> None:
    """E9: the rest of the file is read."""
    source = write(tmp_path / "u.csv", b"id,n\n1,\x80\n2,\x81\n3,c\n")
    report, found = load(source, encoding="cp1252", rejects=tmp_path / "bad")
    assert (found["1"]["n"], set(found)) == ("€", {"1", "3"})
    assert dict(report.rejected) == {"not valid CP1252": 1}
    assert json.loads((tmp_path / "bad").read_text())["line"] == 3


def test_rows_without_a_key_are_counted(tmp_path: Path) -> None:
    report, _ = load(write(tmp_path / "u.csv", 'id,n\n1,a\n,b\n"",c\n'))
    assert (report.read, report.stored, report.first_rejected) == (3, 1, 2)
    assert report.rejected == {"the key is missing or empty": 2}


_SECRET = "planted-value"
_MANY = b"id,n\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(50_000))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("u.csv", "", "is empty or begins with an empty line"),
        ("u.csv", "\nid\n", "is empty or begins with an empty line"),
        ("u.csv", "id,,b\n1,2,3\n", "line 1: column 2 has no name"),
        ("u.csv", "id,a,a\n1,2,3\n", "line 1: two columns are named 'a'"),
        ("u.csv", 'id,"a"b\n1,2\n', "line 1: the header line is not CSV"),
        ("u.csv", ",".join(f"c{n}" for n in range(2001)), "more than 2,000 columns"),
        ("u.csv", f"id,n\n1,a\n2,{_SECRET},c\n", "line 3: 3 fields, but the header line names 2"),
        ("u.csv", f"id,n\n1,a\n{_SECRET}\n", "line 3: 1 fields, but the header line names 2"),
        ("u.csv", f'id,n\n1,"{_SECRET}\n', "line 2: a quoted field is not closed"),
        ("u.csv", f'id,n\n1,"{_SECRET}"x\n', "line 2: a quoted field is not closed"),
        ("u.csv", b"id,n\n1,a\n2," + _SECRET.encode() + b"\xe9\n", "line 3: not valid UTF-8; pass encoding='cp1252'"),
        ("u.csv", b"id,n\n" + b"1,abcdefghij\n" * 2000 + b"2,\xe9\n", "line 2,002: not valid UTF-8"),
        ("u.csv", "id,n\n1," + "x" * 5_000_000 + "\n", "line 2: longer than 4 MB"),
        ("big.csv.gz", gzip.compress(_MANY, mtime=0)[:-2000], "big.csv.gz cannot be unpacked; is it whole"),
        ("u.csv", "user,n\n1,a\n", r"no column 'id' \(key\); its columns are: user, n"),
        ("u.csv.gz", b"not gzip", "cannot be unpacked"),
        ("u.jsonl", '{"id": 1}\n[1]\n', "line 2: not a JSON object"),
        ("u.jsonl", '{"id": 1}\n\n{"id": ' + _SECRET + "}\n", "line 3: not JSON"),
        ("u.jsonl", b'{"id": 1}\n{"id": "\xe9"}\n', "line 2: not valid UTF-8"),
        ("u.jsonl", '{"id": ' + "[" * 100_000, "line 1: nested too deeply"),
        ("u.jsonl.gz", gzip.compress(b'{"id": 1}\n', mtime=0)[:-9], "cannot be unpacked after line"),
        ("u.parquet", "not parquet", "cannot be read as Parquet"),
    ],
)
def test_broken_files_are_said_with_their_line_and_without_values(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        load(write(tmp_path / name, content))
    assert _SECRET not in str(caught.value)
    assert name in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_utf16_said_of_a_file_that_is_not(tmp_path: Path) -> None:
    for name in ("u.csv", "u.jsonl"):
        with pytest.raises(StoreError, match=r"not valid UTF-16|is empty"):
            load(write(tmp_path / name, b"\xff\xfe\x00\xd8\x00"), encoding="utf-16")


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not there"):
        load(tmp_path / "nothing.csv")
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(StoreError, match="is a directory"):
        load(tmp_path / "dir.csv")
    with pytest.raises(ConfigurationError, match="its suffix does not say"):
        load(write(tmp_path / "users.xlsx", "x"))
    with pytest.raises(ConfigurationError, match="its suffix does not say"):
        load(write(tmp_path / "users.parquet.gz", "x"))


def test_a_path_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "u.jsonl", "{}")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match=r"u\.jsonl cannot be read: Permission denied"):
        load(file)


def test_jsonl(tmp_path: Path) -> None:
    text = '\ufeff{"id": 1, "price": 12.50, "f": 1e2, "s": {"a": [1, "2"]}}\r\n\n{"id": "b", "x": true}\n'
    for name, data in (
        ("u.jsonl", text.encode()),
        ("u.ndjson", text.encode()),
        ("v.jsonl.gz", gzip.compress(text.encode())),
    ):
        _, records = load(write(tmp_path / name, data))
        assert records == {
            "1": {"id": 1, "price": 12.5, "f": 100.0, "s": {"a": [1, "2"]}},
            "b": {"id": "b", "x": True},
        }
    _, records = load(write(tmp_path / "w.jsonl", text.encode("utf-16")), encoding="utf-16")
    assert set(records) == {"1", "b"}
    _, records = load(write(tmp_path / "l.jsonl", '{"id":"é"}'.encode("latin-1")), encoding="latin-1")
    assert set(records) == {"é"}


@pytest.mark.parametrize("line", NOT_STRICT)
def test_E9_json_that_only_python_reads_is_a_reject(tmp_path: Path, line: str) -> None:
    file = write(tmp_path / "u.jsonl", f'{{"user_id": "a", "n": 1}}\n{line}\n{{"user_id": "b", "n": 2}}\n')
    with pytest.raises(StoreError, match=r"u\.jsonl, line 2: not JSON: (a number|a name)"):
        load(file, key="user_id")
    report, records = load(file, key="user_id", rejects=tmp_path / "rejects.jsonl")
    assert sum(report.rejected.values()) == 1
    assert set(records) == {"a", "b"}


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    file = tmp_path / "u.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 478060::BIGINT id, 9080350317581165000::UBIGINT mpid, 1.50::DECIMAL(10,2) price,"
            " 0.1::FLOAT f, 'nan'::DOUBLE nan, 2.5::DOUBLE d, true yes, 'é' text, 'x'::BLOB raw,"
            " TIMESTAMP '2018-01-14 15:53:16' created_at, DATE '2018-01-14' \"d\"\"ay\","
            " TIMESTAMPTZ '2018-01-14 15:53:16+02' utc, [1, 2] list, {'a': 'nan'::DOUBLE, 'b': 'NaN'} struct,"
            " MAP {'k': 1} map, NULL::INTEGER none, NULL::INTEGER[] nolist) TO '" + str(file) + "'"
        )
    report, records = load(file)
    assert records["478060"] == {
        "id": 478060,
        "mpid": 9080350317581165000,
        "price": 1.5,
        "f": 0.1,
        "nan": None,
        "d": 2.5,
        "yes": True,
        "text": "é",
        "raw": "eA==",
        "created_at": "2018-01-14 15:53:16",
        'd"ay': "2018-01-14",
        "utc": "2018-01-14 13:53:16+00",
        "list": [1, 2],
        "struct": {"a": None, "b": "NaN"},
        "map": {"k": 1},
        "none": None,
        "nolist": None,
    }
    kinds = {column.name: column.type for column in report.collection.columns}
    assert (kinds["id"], kinds["price"], kinds["yes"], kinds["struct"]) == ("integer", "number", "boolean", "json")
    _, records = load(file, fields=["text"])
    assert records == {"478060": {"id": 478060, "text": "é"}}
    with pytest.raises(StoreError, match="the key column 'd' is DOUBLE"):
        load(file, key="d")
    with pytest.raises(StoreError, match="no column 'nope'"):
        load(file, key="nope")
    with pytest.raises(ConfigurationError, match="`types` is for CSV"):
        load(file, types={"d": "text"})


def test_many_rows_come_in_their_order(tmp_path: Path) -> None:
    file = write(tmp_path / "u.csv", "id,n\n" + "".join(f"{n % 9000},{n}\n" for n in range(10_000)))
    report, records = load(file)
    assert (report.read, report.duplicates, report.first_duplicate) == (10_000, 1000, 9001)
    assert records["1999"]["n"] == 1999
    assert list(records) == [str(n) for n in range(1000, 2000)]


def test_without_duckdb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"profile-enrich\[server\]") as caught:
        load(write(tmp_path / "u.csv", "id\n1\n"))
    assert caught.value.__context__ is None
    assert load(write(tmp_path / "u.jsonl", '{"id": 1}'))[1] == {"1": {"id": 1}}
