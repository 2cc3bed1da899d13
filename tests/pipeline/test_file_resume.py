"""Atomic outputs, and resumed runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import MemorySource, ProfileClient
from profile_enrich._utils.files import FileLock
from profile_enrich.errors import ConfigurationError, InputError, SourceAuthError
from profile_enrich.pipeline.files import FileProgress, enrich_file
from profile_enrich.pipeline.files import file_enrichment as files
from profile_enrich.pipeline.files import formats as _formats
from profile_enrich.pipeline.files import two_pass_writer as _assembly
from profile_enrich.pipeline.files.resumable_output import ResumableOutput
from profile_enrich.pipeline.files.select_reader import open_reader
from profile_enrich.pipeline.records.block_lookup import BlockLookup
from tests.pipeline.file_helpers import enrich, left, lines, many, write

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

# --- atomic outputs and resumed runs ----------------------------------------------------------------------------------


class Crash(Exception):
    """An unexpected exception."""


def crash_at(rows: int) -> Any:
    def look(now: FileProgress) -> None:
        if now.rows >= rows:
            raise Crash

    return look


@pytest.fixture
def _reported_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_REPORT_EVERY", 0.0)
    monkeypatch.setattr(BlockLookup, "block", 1)


@pytest.mark.usefixtures("_reported_each_record")
@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet", "all.csv", "out.csv.gz"])
@pytest.mark.parametrize("every", [1, 7, 1000])
async def test_E1_gone_on_with_it_is_the_same_bytes(
    tmp_path: Path, name: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1: crashes at any record, twice, and during the final write lose and duplicate nothing."""
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
            part.write(b"what was written after the checkpoint")  # as after a kill -9, none is saved
    report = await enrich(source, tmp_path / name, resume=True, **again)
    assert (tmp_path / name).read_bytes() == whole.read_bytes()
    assert (tmp_path / "bad").read_bytes() == bad.read_bytes()
    assert (report.rows, report.written + report.dead, report.resumed) == (120, 120, 119)
    assert left(tmp_path) == {"in.csv", name, f"whole-{name}", "whole.bad", "bad"}


@pytest.mark.usefixtures("_reported_each_record")
@pytest.mark.parametrize("name", ["out.parquet", "out.csv.gz", "out.csv"])
async def test_E7_a_directory_that_is_swapped_during_the_run_gets_nothing(tmp_path: Path, name: str) -> None:
    """E7: a link that replaces the output's directory during the run redirects none of its files."""
    source = write(tmp_path / "in.csv", many(50))
    directory, moved, elsewhere = tmp_path / "directory", tmp_path / "moved", tmp_path / "elsewhere"
    directory.mkdir()
    elsewhere.mkdir()

    def swap(now: FileProgress) -> None:
        if now.rows >= 20 and not moved.exists():
            directory.rename(moved)
            directory.symlink_to(elsewhere)

    options: dict[str, Any] = {"fields": ["tier"], "checkpoint_rows": 7}
    await enrich(source, directory / name, dead_letter=directory / "bad", progress=swap, **options)
    await enrich(source, tmp_path / name, dead_letter=tmp_path / "bad", **options)
    assert (left(elsewhere), left(moved)) == (set(), {name, "bad"})
    assert (moved / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("name", ["out.parquet", "out.csv.gz", "out.csv"])
def test_E1_killed_at_any_change_of_the_folder_it_can_be_resumed(tmp_path: Path, name: str) -> None:
    """E1: after a kill at any rename or removal, the same command with `resume` gives the same result."""
    source = write(tmp_path / "in.csv", many(50))
    options: dict[str, Any] = {"fields": ["tier"], "dead_letter": tmp_path / "bad", "resume": True}
    asyncio.run(enrich(source, tmp_path / f"w-{name}", **{**options, "dead_letter": tmp_path / "w.bad"}))
    step = 0
    while True:
        child = os.fork()
        if child == 0:
            _kill_after(step)
            asyncio.run(enrich(source, tmp_path / name, **options))
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        if not killed:
            break
        if not (tmp_path / name).exists() or (tmp_path / f"{name}.resume").exists():
            asyncio.run(enrich(source, tmp_path / name, **options))
        assert (tmp_path / name).read_bytes() == (tmp_path / f"w-{name}").read_bytes(), step
        assert (tmp_path / "bad").read_bytes() == (tmp_path / "w.bad").read_bytes(), step
        for path in tmp_path.iterdir():
            if path.name not in ("in.csv", f"w-{name}", "w.bad"):
                assert path.name in (name, "bad") or path.name.endswith(".lock"), (step, path.name)
                path.unlink()
        step += 1
    assert step > 10


def _kill_after(steps: int) -> None:
    """In a child process: exit instead of performing the rename or removal after the given number."""
    left_steps = [steps]
    for function in ("replace", "unlink"):
        original = getattr(os, function)

        def stop(*given: Any, _original: Any = original, **named: Any) -> Any:
            if not left_steps[0]:
                os._exit(9)
            left_steps[0] -= 1
            return _original(*given, **named)

        setattr(os, function, stop)


async def test_E1_a_checkpoint_counts_only_what_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E1: the output and the dead letters are synced before the checkpoint that counts them is renamed."""
    done: list[str] = []
    original = os.replace

    def sync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def replace(path: str, target: str, **named: Any) -> None:
        done.append(f"{Path(target).name} <-")
        original(path, target, **named)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not say which file a descriptor is of")
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    source = write(tmp_path / "in.csv", "user_id\nu1\nu1,\n")
    await enrich(source, tmp_path / "out.csv", fields=["tier"], dead_letter=tmp_path / "bad", checkpoint_rows=99)
    note = ["out.csv.resume.new", "out.csv.resume <-", tmp_path.name]
    ends = ["out.csv <-", tmp_path.name, "bad <-", tmp_path.name]
    assert done == [*note, "out.csv.part", "bad.part", *note, *ends]


@pytest.mark.usefixtures("_reported_each_record")
async def test_what_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", many(40)), tmp_path / "out.csv"
    same: dict[str, Any] = {"fields": ["tier"], "dead_letter": tmp_path / "bad"}
    with pytest.raises(Crash):
        await enrich(source, target, progress=crash_at(20), **same)
    for change, named in (
        ({"fields": ["ltv"]}, "fields"),
        ({"prefix": "p_"}, "columns"),
        ({"key": "n"}, "key"),
        ({"on_missing": "drop"}, "on_missing"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"dead_letter": tmp_path / "other"}, "dead letters"),
    ):
        with pytest.raises(ConfigurationError, match=named):
            await enrich(source, target, resume=True, **{**same, **change})
    with pytest.raises(ConfigurationError, match=r"a run to .* was interrupted; pass resume=True to resume it"):
        await enrich(source, target, **same)
    os.utime(source, (1, 1))
    with pytest.raises(ConfigurationError, match="the input's modification time changed"):
        await enrich(source, target, resume=True, **same)
    write(source, many(41))
    with pytest.raises(ConfigurationError, match=r"the input's size, .* time, .* content changed"):
        await enrich(source, target, resume=True, **same)
    assert (await enrich(source, target, force=True, **same)).rows == 41


async def test_dead_letters_can_be_asked_for_when_the_first_record_fails(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "user_id\nu1\n\nu1,\nu2\n")
    with pytest.raises(InputError, match="line 4"):
        await enrich(source, tmp_path / "out.csv", fields=["tier"])
    report = await enrich(source, tmp_path / "out.csv", fields=["tier"], resume=True, dead_letter=tmp_path / "bad")
    assert (report.rows, report.resumed, report.dead) == (3, 1, 1)
    assert (tmp_path / "out.csv").read_text() == "user_id,profile_tier\nu1,gold\nu2,silver\n"


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.csv.gz", "out.parquet", "-"])
@pytest.mark.parametrize("content", ["user_id\nu1,\nu1\n", "user_id\n\xff\nu1\n"])
async def test_a_run_whose_first_record_fails_leaves_nothing(tmp_path: Path, name: str, content: str) -> None:
    """Nothing can be resumed, so after the record is fixed, the same command starts over without an error."""
    source = tmp_path / "in.csv"
    source.write_bytes(content.encode("latin-1"))
    target = Path(name) if name == "-" else tmp_path / name
    with pytest.raises(InputError, match=r"in\.csv, line 2: "):
        await enrich(source, target, fields=["tier"], target_format="csv" if name == "-" else None)
    assert left(tmp_path) == {"in.csv"}
    write(source, "user_id\nu1\n")
    assert (await enrich(source, target, fields=["tier"], target_format="csv" if name == "-" else None)).rows == 1


async def test_resuming_is_offered_only_where_it_can_be_done(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", "user_id\nu1\nu2,\n"), tmp_path / "out.csv"
    with pytest.raises(InputError, match="line 3"):
        await enrich(source, target, fields=["tier"])
    with pytest.raises(ConfigurationError, match="pass resume=True to resume it, or pass force=True to start over"):
        await enrich(source, target, fields=["tier"])
    write(source, "user_id\nu1\nu2\n")
    with pytest.raises(ConfigurationError, match=r"size.* changed\); give the same .*, or pass force=True") as caught:
        await enrich(source, target, fields=["tier"])
    assert "resume" not in caught.value.message
    assert (await enrich(source, target, fields=["tier"], force=True)).rows == 2
    assert left(tmp_path) == {"in.csv", "out.csv"}


async def test_damaged_notes_and_parts_are_refused(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", "user_id,n\nu1,1\nshort\n"), tmp_path / "out.csv"
    notes = tmp_path / "out.csv.resume"
    with pytest.raises(InputError):
        await enrich(source, target, fields=["tier"])
    good = notes.read_text()
    for damaged in ("", "{}", "[]", '{"version": 1, "state": {}, "job": {}}', '{"version": 2, "state": {}, "job": 1}'):
        notes.write_text(damaged)
        with pytest.raises(ConfigurationError, match="is damaged or of another version; remove it, or pass force=True"):
            await enrich(source, target, fields=["tier"], resume=True)
    notes.write_text(good.replace('"the output": ', '"the output": 9'))
    with pytest.raises(ConfigurationError, match="is shorter than its checkpoint says"):
        await enrich(source, target, fields=["tier"], resume=True)


async def test_files_that_are_there_are_not_destroyed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"user_id": "u1"}\n')
    target, bad = write(tmp_path / "out.jsonl", "mine"), write(tmp_path / "bad", "mine")
    for options in ({}, {"dead_letter": bad}):
        with pytest.raises(ConfigurationError, match="exists; pass force=True to replace it"):
            await enrich(source, target, **options)
    assert target.read_text() == bad.read_text() == "mine"
    await enrich(source, target, dead_letter=bad, force=True, fields=["tier"])
    assert lines(target) == [{"user_id": "u1", "profile_tier": "gold"}]
    assert bad.read_text() == ""  # this run has none; the existing file may be replaced, but not deleted


@pytest.mark.long
@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet", "all.csv", "out.csv.gz"])
async def test_E7_no_other_run_comes_between_at_any_moment(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E7: at each record, during the final write, and at each rename, with and without resume and force."""
    monkeypatch.setattr(files, "_REPORT_EVERY", 0.0)
    monkeypatch.setattr(BlockLookup, "block", 1)
    source = write(tmp_path / "in.csv", many(30))
    options: dict[str, Any] = {"fields": None if name == "all.csv" else ["tier"], "dead_letter": tmp_path / "bad"}
    await enrich(source, tmp_path / f"w-{name}", **{**options, "dead_letter": tmp_path / "w.bad"})
    refused = 0

    def intrude(*given: Any) -> None:
        nonlocal refused
        for resume, force in itertools.product((False, True), (False, True)):
            for target, dead in ((tmp_path / name, tmp_path / "bad2"), (tmp_path / "other.csv", tmp_path / "bad")):
                with pytest.raises(ConfigurationError, match=r"another run writes .*; wait until that has ended"):
                    ResumableOutput(target, job={}, resume=resume, force=force, more={"the dead letters": dead})
                refused += 1

    for module, function in ((_assembly, "csv_line"), (_assembly, "_schema"), (Path, "replace")):
        original = getattr(module, function)

        def watched(*given: Any, _original: Any = original, **named: Any) -> Any:
            if not refusing:
                refusing.append(True)
                intrude()
                refusing.clear()
            return _original(*given, **named)

        monkeypatch.setattr(module, function, watched)
    refusing: list[bool] = [True]
    refusing.clear()
    await enrich(source, tmp_path / name, progress=intrude, **options)
    monkeypatch.undo()
    assert refused > 200
    assert (tmp_path / name).read_bytes() == (tmp_path / f"w-{name}").read_bytes()
    assert (tmp_path / "bad").read_bytes() == (tmp_path / "w.bad").read_bytes()
    assert left(tmp_path) == {"in.csv", name, f"w-{name}", "bad", "w.bad"}


async def test_E6_a_refused_run_leaves_an_interrupted_one_as_it_is(tmp_path: Path) -> None:
    """E6: also with `force`."""
    source, target = write(tmp_path / "in.csv", many(9)), tmp_path / "out.csv"
    with pytest.raises(InputError):
        await enrich(source, target, fields=["tier"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with FileLock(tmp_path / "out.csv.lock") as lock:
        assert lock.acquire()
        with pytest.raises(ConfigurationError, match="another run writes"):
            await enrich(source, target, fields=["tier"], force=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", ["part", "making", "new"])
@pytest.mark.parametrize("force", [False, True])
async def test_E6_a_file_of_another_program_beside_the_output_stays(tmp_path: Path, suffix: str, force: bool) -> None:
    source, mine = write(tmp_path / "in.csv", many(2)), write(tmp_path / f"out.csv.{suffix}", "mine")
    with pytest.raises(
        ConfigurationError, match="exists and does not belong to an interrupted run of this output; move"
    ):
        await enrich(source, tmp_path / "out.csv", fields=["tier"], force=force)
    assert mine.read_text() == "mine"


async def test_E6_an_output_that_somebody_makes_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", "user_id\nu1\n"), tmp_path / "out.csv"
    with pytest.raises(ConfigurationError, match="was made by somebody else while the run was writing it"):
        await enrich(source, target, fields=["tier"], progress=lambda _: write(target, "theirs") and None)
    assert target.read_text() == "theirs"
    target.unlink()
    await enrich(source, target, fields=["tier"], resume=True)
    assert target.read_text() == "user_id,profile_tier\nu1,gold\n"


async def test_resume_starts_a_run_where_there_is_none(tmp_path: Path) -> None:
    """A scheduled job can always pass `resume`; a complete output is not replaced without `force`."""
    source, target = write(tmp_path / "in.csv", "user_id\nu1\n"), tmp_path / "out.csv"
    assert (await enrich(source, target, fields=["tier"], resume=True)).resumed == 0
    with pytest.raises(ConfigurationError, match="exists; pass force=True"):
        await enrich(source, target, fields=["tier"], resume=True)
    write(source, "user_id\nu1\nu2\n")
    assert (await enrich(source, target, fields=["tier"], resume=True, force=True)).rows == 2


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
async def test_a_full_disk_is_said_with_the_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in.csv", many(2))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: .*{name}\.(resume|part)"):
        await enrich(source, tmp_path / name, fields=["tier"], dead_letter=tmp_path / "bad")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, "key must name the column"),
        ({"key": "nope"}, "no column 'nope'; it has 2: user_id, n"),
        ({"fields": "tier"}, "fields must be a list of attributes"),
        ({"fields": []}, "fields must name at least one"),
        ({"fields": {"tier": "string"}}, "types of fields are for the columns of a Parquet file"),
        ({"into": ""}, "into must be the name of a column"),
        ({"on_missing": "no"}, "on_missing must be"),
        ({"on_missing": "dead_letter"}, "needs a file for them: pass dead_letter="),
        ({"max_errors": -1}, "max_errors must be"),
        ({"max_errors": 1.5}, "max_errors as a fraction must be at most"),
        ({"encoding": "no-such"}, "is not a text encoding"),
        ({"encoding": "base64"}, "is not a text encoding"),
        ({"encoding": "utf-32"}, "is not a text encoding"),
        ({"window": 0}, "window must be"),
        ({"checkpoint_rows": 0}, "checkpoint_rows must be"),
        ({"source": "-", "source_format": "csv"}, "the input is read twice"),
        (
            {"source": "-", "source_format": "csv", "fields": ["a"], "resume": True},
            "only a run from a regular file to a file",
        ),
        ({"source": "-"}, "is not that of CSV, JSONL or Parquet"),
        ({"source": "-", "source_format": "parquet"}, "Parquet cannot be in standard input"),
        ({"target": "x.parquet.gz"}, "Parquet cannot be in a .gz file"),
        ({"target": "out.txt"}, "the output: its suffix is not that of"),
        ({"target": "in.csv"}, "is the output and the input at once"),
        ({"target": "no/out.csv"}, "the directory no does not exist"),
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
            pq.write_table(pa.table({"user_id": ["u1", "u2"]}), source)
        reader = open_reader(_formats.FileSpec.of(source), "user_id")
        with contextlib.closing(reader), pytest.raises(InputError, match="became shorter while it was read"):
            _assembly.assemble(
                reader,
                io.BytesIO(b"[1, {}]\n[99, {}]\n"),
                io.BytesIO(),
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
