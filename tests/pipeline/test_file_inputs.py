"""Inputs that change, are truncated, or contradict the arguments: never a wrong output, never exit code 0."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_enrich._utils import file_identity
from profile_enrich.errors import ConfigurationError, InputError, ProfileEnrichError, StoreError
from profile_enrich.pipeline.files import file_enrichment as files
from profile_enrich.pipeline.files import resumable_output
from profile_enrich.pipeline.files import two_pass_writer as second_pass
from profile_enrich.store import CollectionSpec, build_store
from tests.pipeline.file_helpers import enrich, left, lines, many, write

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

# --- inputs that change -----------------------------------------------------------------------------------------------

KINDS = ["in.csv", "in.csv.gz", "in.jsonl", "in.parquet"]


def make(path: Path, ids: list[str]) -> Path:
    """Write a file of any format with these ids; its size depends only on their number."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"user_id": ids}), path, compression="none", use_dictionary=False)
        return path
    if path.suffix == ".jsonl":
        return write(path, "".join(json.dumps({"user_id": each}) + "\n" for each in ids))
    text = "user_id\n" + "".join(f"{each}\n" for each in ids)
    return write(path, gzip.compress(text.encode(), compresslevel=0) if path.suffix == ".gz" else text)


IDS = ["u1", "u2", "u9", "u1"] * 50


def _rewrite(path: Path) -> None:
    make(path, IDS[::-1])


def _rewrite_and_restore_the_time(path: Path) -> None:
    before = path.stat()
    make(path, IDS[:1] + IDS[1:-1][::-1] + IDS[-1:])
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _move_over(path: Path) -> None:
    make(path.with_name(f"new.{path.name}"), IDS[::-1]).replace(path)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"u1\n")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


CHANGES = [_rewrite, _rewrite_and_restore_the_time, _move_over, _append, _cut, Path.unlink]


@pytest.mark.parametrize("moment", ["first pass", "between", "second pass"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("name", KINDS)
async def test_E5_an_input_that_changes_ends_the_run_without_an_output(
    tmp_path: Path,
    name: str,
    target: str,
    change: Callable[[Path], None],
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """E5: otherwise the second pass would join records with the wrong profiles."""
    monkeypatch.setattr(file_identity, "_END", 8)  # as in a large file, the middle changes and the ends do not
    monkeypatch.setattr(files, "_REPORT_EVERY", 0.0)
    source = make(tmp_path / name, IDS)
    changed: list[bool] = []

    def once(*_: object) -> None:
        if not changed:
            changed.append(True)
            change(source)

    made, assembled = resumable_output.ResumableOutput.make, second_pass.assemble

    def make_after(*given: Any, **named: Any) -> None:
        once()
        made(*given, **named)

    def assemble_before(*given: Any, **named: Any) -> list[str]:
        clashes = assembled(*given, **named)
        once()
        return clashes

    if moment == "between":
        monkeypatch.setattr(resumable_output.ResumableOutput, "make", make_after)
    elif moment == "second pass":
        monkeypatch.setattr(files, "assemble", assemble_before)
    if moment == "second pass" and change is _rewrite_and_restore_the_time:
        pytest.skip("what was read before the change is one state of the file")
    options: dict[str, Any] = {"progress": once if moment == "first pass" else None}
    with pytest.raises(ProfileEnrichError) as caught:
        await enrich(source, tmp_path / target, **options)
    assert isinstance(caught.value, InputError)
    assert name in str(caught.value)
    assert left(tmp_path) <= {name}  # nor files that only another input could resume


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, 199), text=st.sampled_from([b"u2", b"u1", b"xx"]), kind=st.sampled_from(KINDS[:1] + KINDS[2:3])
)
async def test_E5_whichever_bytes_change(tmp_path: Path, at: int, text: bytes, kind: str) -> None:
    """E5: one record, in place, between two passes, with the time restored."""
    source = make(tmp_path / kind, IDS)
    (tmp_path / "out.parquet").unlink(missing_ok=True)
    before, facts = source.read_bytes(), source.stat()
    place = before.split(IDS[at].encode())
    after = bytearray(before)
    spots = [spot for spot in range(len(before)) if before.startswith((b"u1", b"u2", b"u9"), spot)]
    after[spots[at] : spots[at] + 2] = text

    def change(*_: object) -> None:
        source.write_bytes(after)
        os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert place
    if bytes(after) == before:
        await enrich(source, tmp_path / "out.parquet", force=True, progress=change)
        return
    with pytest.raises(InputError, match="changed while it was read"):
        await enrich(source, tmp_path / "out.parquet", force=True, progress=change)
    assert not (tmp_path / "out.parquet").exists()


# --- inputs that can be read once -------------------------------------------------------------------------------------


async def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("user_id\nu1\n",))
    writer.start()
    await enrich(pipe, tmp_path / "out.csv", source_format="csv", fields=["tier"])
    writer.join()
    assert (tmp_path / "out.csv").read_text() == "user_id,profile_tier\nu1,gold\n"
    for options, message in (
        ({"source_format": "csv"}, "the input is read twice"),
        ({"source_format": "csv", "fields": ["a"], "resume": True}, "only a run from a regular file"),
        ({"source_format": "parquet"}, "Parquet needs a regular file"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            await enrich(pipe, tmp_path / "o.csv", **options)


# --- exceptions of libraries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("name", ["in.csv.gz", "in.jsonl.gz"])
async def test_E9_a_gzip_file_that_breaks_off_is_named(tmp_path: Path, name: str, keep: float) -> None:
    rows = "".join(f'{{"user_id": "u{number * 7919}"}}\n' for number in range(5000))
    text = rows if "jsonl" in name else many(5000)
    packed = gzip.compress(text.encode())
    source = write(tmp_path / name, packed[: int(len(packed) * keep)])
    with pytest.raises(InputError, match=rf"{name}: the gzip data is damaged or cut off"):
        await enrich(source, tmp_path / "out.csv", dead_letter=tmp_path / "bad")


@pytest.mark.parametrize("at", range(0, 400, 9))
async def test_E9_damaged_bytes_are_our_error(tmp_path: Path, at: int) -> None:
    """E9: for a wrong byte anywhere in a gzip or Parquet file; damage that no checksum covers may pass."""
    for name in ("in.csv.gz", "in.parquet"):
        source = tmp_path / name
        if name == "in.parquet":
            pq.write_table(pa.table({"user_id": IDS}), source)
        else:
            write(source, gzip.compress(many(2000).encode()))
        content = bytearray(source.read_bytes())
        content[at * len(content) // 400] ^= 0x55
        write(source, bytes(content))
        with contextlib.suppress(ProfileEnrichError):  # anything else fails
            await enrich(source, tmp_path / "out.jsonl", dead_letter=tmp_path / "bad", force=True)


NOON = datetime.datetime(2024, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("target", ["out.jsonl", "out.csv", "out.parquet"])
@pytest.mark.parametrize("pandas", [True, False])
async def test_E9_times_that_python_does_not_have(
    tmp_path: Path, target: str, pandas: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E9: nanoseconds without pandas, years beyond 9999: as text where they have one, else one dead letter each."""
    if not pandas:
        monkeypatch.setitem(sys.modules, "pandas", None)
    table = pa.table(
        {
            "user_id": ["u1", "u2", "u1"],
            "ns": pa.array([1700000000123456789, 1, None], pa.int64()).view(pa.timestamp("ns")),
            "far": pa.array([400000000000, 0, -300000000000], pa.int64()).view(pa.timestamp("s")),
            "none": pa.array([0, 2**60, 0], pa.int64()).view(pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    report = await enrich(
        tmp_path / "in.parquet", tmp_path / target, fields=["tier"], dead_letter=tmp_path / "bad.jsonl"
    )
    if target == "out.parquet":
        assert (
            pq.read_table(tmp_path / target).drop_columns("profile_tier").equals(pq.read_table(tmp_path / "in.parquet"))
        )
        return
    assert (report.rows, report.written, report.reasons) == (3, 2, {"bad_input": 1})
    (letter,) = lines(tmp_path / "bad.jsonl")
    assert (letter["row"], letter["detail"]) == (2, "the column none: a time outside of the calendar")
    if target == "out.jsonl":
        first, second = lines(tmp_path / target)
        assert (first["ns"], first["far"]) == ("2023-11-14T22:13:20.123456789", "14645-06-30T15:06:40.000")
        assert (second["ns"], second["far"]) == (None, "-7537-05-18T18:40:00.000")


async def test_E9_what_is_missing_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E9: a Parquet output without pyarrow makes no lookup."""
    source = write(tmp_path / "in.csv", many(5))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ProfileEnrichError, match=r"profile-enrich\[arrow\]"):
        await enrich(source, tmp_path / "out.parquet", fields=["tier"])
    assert left(tmp_path) == {"in.csv"}


# --- files with misleading names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id;n\nu1;2\n", r"read with the delimiter ',', it has one column. .* by ';'\? Then pass delimiter=';'"),
        ("user_id n\nu1 2\n", "Then pass delimiter=' '"),
        ("user_id\tn\nu1\t2\n", r"Then pass delimiter='\\t'"),
        (
            "sep=;\nuser_id;n\nu1;2\n",
            "line 1: 'sep=;' is a note for spreadsheets; remove the line and pass delimiter=';'",
        ),
        ("user_id,n\ru1,2\ru2,3\r", "its lines end in CR alone"),
        (
            "user_id,n\nu1,é\n".encode("cp1252"),
            r"line 2: not utf-8; pass the encoding of the file, e\.g\. encoding='cp1252'",
        ),
        ("user_id,n\nu1,2\n".encode("utf-16-le"), "is it UTF-16? Then pass encoding='utf-16-le'"),
        (gzip.compress(b"user_id,n\nu1,2\n", mtime=0), "compressed with gzip; let its name end in .gz"),
        (b"PK\x03\x04\x14\x00\x06\x00", "a ZIP archive or a spreadsheet, not text"),
        ("User_ID,n\nu1,2\n", "did you mean 'User_ID'?"),
        (" user_id,n\nu1,2\n", "did you mean ' user_id'?"),
    ],
)
async def test_E9_the_likely_cause_is_said(tmp_path: Path, content: str | bytes, message: str) -> None:
    source = write(tmp_path / "in.csv", content)
    with pytest.raises(ProfileEnrichError, match=message.replace("?", r"\?") if r"\?" not in message else message):
        await enrich(source, tmp_path / "out.csv", fields=["tier"])


async def test_a_delimiter_can_be_said(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", 'user_id;n\nu1;"a;b"\n')
    await enrich(source, tmp_path / "out.csv", fields=["tier"], delimiter=";")
    assert (tmp_path / "out.csv").read_text() == 'user_id;n;profile_tier\nu1;"a;b";gold\n'
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(ConfigurationError, match="a delimiter is one character"):
            await enrich(source, tmp_path / "o.csv", fields=["tier"], delimiter=wrong)


# --- nothing matched --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
@pytest.mark.parametrize(
    ("ids", "fields", "problems"),
    [
        (["u1", ""], ["tier"], []),
        (["u1", "", ""], ["tier"], ["2 of 3 records have no key: is 'user_id' the right column?"]),
        (["u9", "u8"], ["tier"], ["no record has a profile: does 'user_id' hold the ids of this source"]),
        (["u1", "u9"], ["tier", "teir"], ["no profile has the attribute 'teir'"]),
        ([], ["teir"], []),
    ],
)
async def test_E8_nothing_matched_is_a_problem(
    tmp_path: Path, name: str, ids: list[str], fields: list[str], problems: list[str]
) -> None:
    """E8: the run ends, and its report names the probable mistake."""
    rows = "".join(json.dumps({"user_id": each, "x": 1}) + "\n" for each in ids)
    source = write(tmp_path / name, rows if name == "in.jsonl" else "user_id,x\n" + "".join(f"{i},1\n" for i in ids))
    report = await enrich(source, tmp_path / "out.jsonl", fields=fields)
    assert len(report.problems) == len(problems)
    assert all(said.startswith(expected) for said, expected in zip(report.problems, problems, strict=True))


async def test_E8_a_key_that_no_json_record_has(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"user_id": "u1"}\n' * 3)
    report = await enrich(source, tmp_path / "out.jsonl", key="userid")
    assert report.problems == ["3 of 3 records have no key: is 'userid' the right column?"]


@pytest.mark.long
def test_standard_output_can_have_columns_that_are_known_at_the_end(tmp_path: Path) -> None:
    """Two passes, and dead letters beside them, without a file for the output."""
    write(tmp_path / "in.csv", "user_id\nu1\nu2\nu1,x\n")
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.pipeline.file_helpers import enrich\n"
        "asyncio.run(enrich('in.csv', '-', target_format='csv', dead_letter=sys.argv[1], "
        "delimiter=None))\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program, "bad.jsonl"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr.decode()
    header, *rest = done.stdout.decode().splitlines()
    assert header == "user_id,profile_tier,profile_ltv,profile_name,profile_tags"
    assert rest[0].startswith("u1,gold,12.5,")
    assert left(tmp_path) == {"in.csv", "bad.jsonl"}
    assert lines(tmp_path / "bad.jsonl")[0]["reason"] == "bad_input"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
async def test_E9_the_line_of_text_that_is_not_utf_16_is_counted(tmp_path: Path, name: str, codec: str) -> None:
    """Decoding works in blocks, ahead of the current line."""
    lines = ["user_id,n\n"] if name == "in.csv" else []
    lines += ["u1,é\n" if name == "in.csv" else '{"user_id": "u1", "n": "é"}\n'] * 9_000
    half = "\ud800".encode(codec, "surrogatepass")
    content = "".join(lines).encode(codec) + half + "".join(lines).encode(codec)
    (tmp_path / name).write_bytes("\ufeff".encode(codec) + content)
    with pytest.raises(InputError, match=f"{name}, line {len(lines) + 1:,}: not {codec}"):
        await enrich(tmp_path / name, tmp_path / "out.jsonl", fields=["tier"])
    with pytest.raises(StoreError, match=f"{name}, line {len(lines) + 1:,}: not valid {codec.upper()}"):
        build_store(tmp_path / "s", [CollectionSpec("Users", tmp_path / name, key="user_id")])


async def test_E9_a_parquet_page_whose_checksum_is_wrong_is_refused(tmp_path: Path) -> None:
    """The checksum is optional, and pyarrow verifies it only on request."""
    table = pa.table({"user_id": [f"u{n}" for n in range(2_000)]})
    path = tmp_path / "in.parquet"
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    await enrich(path, tmp_path / "out.jsonl", fields=["tier"])
    content = bytearray(path.read_bytes())
    content[content.find(b"u1500") + 1] ^= 8  # another valid id
    path.write_bytes(content)
    assert pq.read_table(path)["user_id"][1500].as_py() == "u9500"
    with pytest.raises(InputError, match=r"in\.parquet"):
        await enrich(path, tmp_path / "new.jsonl", fields=["tier"])
    assert left(tmp_path) == {"in.parquet", "out.jsonl"}
