"""Rejected rows: counted, and written to the file for rejects with the line and the reason."""

from __future__ import annotations

import gzip
import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.errors import ConfigurationError, StoreError
from profile_enrich.store import CollectionReport, CollectionSpec, LocalStore, Stream, build_store
from profile_enrich.store.inputs.rejects import Rejects
from profile_enrich.store.inputs.select_reader import open_reader

BROKEN = (
    b'id,n\n1,a\n2,b,c\n3\n4,"x\n5,y\n6,ez\n7,"q"u\n8,ok\n"9","several\nlines"\n10\n,nokey\n1,again\n11,\xe9\n12,last\n'
)


def load(tmp_path: Path, source: Any, **options: Any) -> tuple[CollectionReport, set[str], list[dict[str, Any]]]:
    """The report, the keys that were stored, and the entries of the file of rejects."""
    file = tmp_path / "bad.jsonl"
    report = build_store(tmp_path / "store", [CollectionSpec("U", source, rejects=file, **options)]).collections[0]
    with LocalStore(tmp_path / "store") as store:
        page = store.page("U", limit=1000, dialect="amperity")
        keys = {json.loads(payload)["id"] for payload in page.payloads}
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return report, keys, entries


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_broken_csv_lines_are_left_out_with_their_line(tmp_path: Path, bom: bytes, packed: bool) -> None:
    """Lines are counted as an editor counts them, also after a field of several lines."""
    file = tmp_path / ("u.csv.gz" if packed else "u.csv")
    file.write_bytes(gzip.compress(bom + BROKEN) if packed else bom + BROKEN)
    report, keys, entries = load(tmp_path, file)
    assert keys == {"1", "8", "9", "12"}
    assert [(entry.get("line"), entry["reason"].split(";")[0]) for entry in entries[:5]] == [
        (3, "more fields than the header line names"),
        (4, "fewer fields than the header line names"),
        (5, "a quoted field is not closed properly"),
        (12, "fewer fields than the header line names"),
        (15, "not valid UTF-8"),
    ]
    assert entries[0]["raw"] == "2,b,c"
    assert entries[2]["raw"] == '4,"x\n5,y\n6,ez\n7,"q"u'
    assert entries[5] == {
        "source": str(file),
        "row": 4,
        "reason": "the key is missing or empty",
        "data": {"id": None, "n": "nokey"},
    }
    assert (report.read, report.stored, report.duplicates) == (11, 4, 1)
    assert report.first_rejected == 4
    assert report.first_rejected_line == 3
    assert sum(report.rejected.values()) == 6
    assert stat.S_IMODE((tmp_path / "bad.jsonl").stat().st_mode) == 0o600


def test_E6_a_run_that_fails_keeps_the_rejects_of_the_one_before(tmp_path: Path) -> None:
    """E6: they belong to the records that are still served; a run without rejects removes them."""
    source, kept = tmp_path / "u.csv", tmp_path / "bad.jsonl"
    source.write_text("id,n\n1,a\n2,b,c\n3,d\n")
    load(tmp_path, source)
    before = kept.read_text()
    assert json.loads(before)["raw"] == "2,b,c"
    for broken in ("", "other,n\n1,a\n", 'id,n\n1,"a\n2,b\n'):
        source.write_text(broken)
        with pytest.raises(StoreError):
            load(tmp_path, source)
        assert kept.read_text() == before
    source.write_text("id,n\n1,a\n2,b\n3,d\n")
    assert load(tmp_path, source)[2] == []
    assert not kept.exists()


def test_a_number_of_a_rejected_row_stays_a_number(tmp_path: Path) -> None:
    source = tmp_path / "u.jsonl"
    source.write_text('{"id": 1.0, "v": 3}\n{"id": 2, "v": 4}\n')
    (entry,) = load(tmp_path, source)[2]
    assert entry["data"] == {"id": 1.0, "v": 3}
    assert type(entry["data"]["id"]) is float


@pytest.mark.long
def test_no_good_csv_row_is_lost_among_many_broken_ones(tmp_path: Path) -> None:
    lines = [f"{n},x,y" if n % 97 == 0 else f"{n},x" for n in range(60_000)]
    file = tmp_path / "u.csv"
    file.write_text("id,n\n" + "\n".join(lines) + "\n")
    spec = CollectionSpec("U", file, rejects=tmp_path / "bad.jsonl")
    report = build_store(tmp_path / "store", [spec]).collections[0]
    broken = [n for n in range(60_000) if n % 97 == 0]
    assert report.stored == 60_000 - len(broken)
    entries = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in entries] == [n + 2 for n in broken]


def test_broken_lines_of_a_csv_in_latin_1_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "u.csv"
    file.write_bytes("id,n\n1,é\n2,é,c\n3,ü\n".encode("latin-1"))
    _, keys, entries = load(tmp_path, file, encoding="latin-1")
    assert keys == {"1", "3"}
    assert [(entry["line"], entry["raw"]) for entry in entries] == [(3, "2,é,c")]


def test_a_broken_header_line_is_no_row_to_leave_out(tmp_path: Path) -> None:
    file = tmp_path / "u.csv"
    for header in (b"id,\xe9\n1,a\n", b"id,n,n\n1,a,b\n", b"n\n1\n"):
        file.write_bytes(header)
        with pytest.raises(StoreError, match=r"line 1|no column 'id'"):
            load(tmp_path, file)
        assert not (tmp_path / "bad.jsonl").exists()  # no row was rejected


JSONL = b'{"id":1}\n\n{"id":\n[2]\n{"n":2}\n{"id":"\xe9"}\n{"id":null}\n{"id":3}\n' + b"[" * 100_000 + b"\n"


def test_broken_json_lines_are_left_out_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "u.jsonl"
    file.write_bytes(JSONL)
    report, keys, entries = load(tmp_path, file)
    assert keys == {"1", "3"}
    assert [(entry["line"], entry["reason"].split(";")[0]) for entry in entries] == [
        (3, "not JSON"),
        (4, "not a JSON object"),
        (5, "the key is missing or empty"),
        (6, "not valid UTF-8"),
        (7, "the key is missing or empty"),
        (9, "nested too deeply"),
    ]
    assert entries[0]["raw"] == '{"id":'
    assert entries[3]["raw"] == '{"id":"\\xe9"}'
    assert entries[2]["data"] == {"n": 2}
    assert (report.read, report.stored, report.first_rejected, report.first_rejected_line) == (8, 2, 2, 3)


def test_an_iterable_has_rows_in_place_of_lines(tmp_path: Path) -> None:
    _, keys, entries = load(tmp_path, [{"id": "1"}, {"n": 2}, {"id": "3", "when": "\ud800"}])
    assert keys == {"1"}
    assert [entry["row"] for entry in entries] == [2, 3]
    assert entries[0]["source"] == "the source of 'U'"


def test_when_nothing_is_left_out_no_file_is_left(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"source": "u", "row": 1, "reason": "of the last run"}\n')
    _, keys, entries = load(tmp_path, [{"id": "1"}])
    assert (keys, entries) == ({"1"}, [])
    assert not (tmp_path / "bad.jsonl").exists()


def test_E9_a_full_disk_is_said_with_the_file() -> None:
    """E9: of several files that a build writes, the one that could not be written is named."""
    rejects = Rejects(Path("/dev/full"), "u.csv")
    rejects.add("broken", line=1, raw="x")
    with pytest.raises(StoreError, match="the file for rows left out, /dev/full, cannot be written: No space left"):
        rejects.close()


def test_a_file_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    spec = CollectionSpec("U", [{"id": "1"}], rejects=tmp_path / "nowhere" / "bad.jsonl")
    with pytest.raises(
        ConfigurationError, match=r"the file for rejected rows of U .*: the directory .* does not exist"
    ) as caught:
        build_store(tmp_path / "store", [spec])
    assert caught.value.__context__ is None


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_stream_of_text_is_read(tmp_path: Path, kind: Any) -> None:
    text = BROKEN if kind == "csv" else BROKEN.replace(b",", b"\t")
    report, keys, entries = load(tmp_path, Stream(io.BytesIO(text), kind))
    assert keys == {"1", "8", "9", "12"}
    assert entries[0]["source"] == "standard input"
    assert report.read == 11


def test_a_stream_of_json_lines_is_read_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    _, keys, entries = load(tmp_path, Stream(io.BytesIO(JSONL), "jsonl", "the pipe"))
    assert keys == {"1", "3"}
    assert entries[0]["source"] == "the pipe"


def test_a_stream_of_parquet_is_read_and_its_copy_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    import duckdb

    duckdb.sql(f"COPY (SELECT i AS id FROM range(3) t(i)) TO '{tmp_path / 'u.parquet'}'")
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    _, keys, _ = load(tmp_path, Stream(io.BytesIO((tmp_path / "u.parquet").read_bytes()), "parquet"))
    assert keys == {"0", "1", "2"}
    with pytest.raises(StoreError, match="standard input cannot be read as Parquet"):
        load(tmp_path, Stream(io.BytesIO(b"not parquet"), "parquet"))
    assert list(copies.iterdir()) == []


class Failing(io.RawIOBase):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise self.error


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_stream_that_breaks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(StoreError, match=r"standard input cannot be (copied to a temporary file|read)"):
        load(tmp_path, Stream(io.BufferedReader(Failing(OSError(5, "Input/output error"))), kind))
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, Stream(io.BufferedReader(Failing(KeyboardInterrupt())), kind))
    assert not list(tmp_path.glob("profile-enrich-*"))


def test_a_format_that_is_not_known_is_refused(tmp_path: Path) -> None:
    wrong: Any = "xml"
    with pytest.raises(ConfigurationError, match="the format of standard input is one of: csv, tsv, jsonl, parquet"):
        load(tmp_path, Stream(io.BytesIO(b""), wrong))
    with pytest.raises(ConfigurationError, match="the format 'xml' is not known; there are: csv"):
        load(tmp_path, tmp_path / "u.xml", format=wrong)


def test_json_lines_say_how_far_they_are(tmp_path: Path) -> None:
    """The progress bar estimates the number of lines from the length of the first ones."""
    file = tmp_path / "u.jsonl"
    file.write_text("".join(f'{{"id": {n:05}}}\n'.replace(": 0", ": 1") for n in range(20_000)))
    reader = open_reader(CollectionSpec("U", file))
    totals = [reader.total]
    rows = reader.rows()
    for _ in range(5000):
        next(rows)
    totals.append(reader.total)
    reader.close()
    totals.append(reader.total)
    assert (totals[0], totals[2]) == (None, None)
    assert totals[1] is not None
    assert 10_000 < totals[1] < 30_000
    assert open_reader(CollectionSpec("U", [{"id": 1}])).total is None


def test_utf_16_that_breaks_ends_the_build(tmp_path: Path) -> None:
    file = tmp_path / "u.jsonl"
    file.write_bytes('{"id": 1}\n'.encode("utf-16") + b"\x00\xd8\n\x00")
    with pytest.raises(StoreError, match="not valid UTF-16") as caught:
        load(tmp_path, file, encoding="utf-16")
    assert caught.value.__context__ is None


def test_a_packed_file_that_ends_early_ends_the_build(tmp_path: Path) -> None:
    file = tmp_path / "u.jsonl.gz"
    packed = gzip.compress("".join(f'{{"id": {n * n}}}\n' for n in range(5000)).encode(), mtime=0)
    file.write_bytes(packed[:-2000])
    with pytest.raises(StoreError, match=r"cannot be unpacked after line [\d,]+; is it whole\?"):
        load(tmp_path, file)


def test_a_format_can_be_said_of_a_file_whose_suffix_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "export.txt"
    file.write_text('{"id": 1}\n')
    assert load(tmp_path, file, format="jsonl")[1] == {"1"}
    file.write_text("id\tn\n5\ta,b\n")
    assert load(tmp_path, file, format="tsv")[1] == {"5"}
    with pytest.raises(ConfigurationError, match="or pass format='csv'"):
        load(tmp_path, file)


def test_a_csv_that_grows_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    from profile_enrich.store.inputs.csv import CsvReader

    file = tmp_path / "u.csv"
    file.write_text("id\n1\n2\n")
    reader = CsvReader(CollectionSpec("U", file), file, "csv", str(file), {})
    file.write_text("id\n1\n2\n3\n")
    with pytest.raises(StoreError, match="changed while it was read"):
        list(reader.rows())
    reader.close()
