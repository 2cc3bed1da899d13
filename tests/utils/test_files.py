"""Private files, locks, identities of inputs, paths of outputs, units."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich._utils import files
from profile_enrich._utils.file_identity import FileIdentity
from profile_enrich._utils.files import FileLock, OpenDirectory, beside, private_opener, replace_private
from profile_enrich._utils.output_paths import OutputPath, check_output_paths
from profile_enrich._utils.units import parse_duration, parse_rate
from profile_enrich.errors import ConfigurationError, InputError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- private files and locks ------------------------------------------------------------------------------------------


def test_a_private_file_is_its_owners_and_follows_no_link(tmp_path: Path) -> None:
    with open(tmp_path / "new", "wb", opener=private_opener):
        pass
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"), open(tmp_path / "link", "wb", opener=private_opener):
        pass
    assert not (tmp_path / "target").exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    replace_private(path, b"one")
    beside(path, "new").write_bytes(b"left by a crash")
    replace_private(path, b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777, _names(tmp_path)) == (b"two", 0o600, ["file"])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_private(path, b"three")
    assert (path.read_bytes(), _names(tmp_path)) == (b"two", ["file"])


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_E7_a_directory_that_is_swapped_while_a_file_is_written_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_descriptor: bool
) -> None:
    """E7: something else takes the directory's path between the opening of a file and its rename."""
    if not by_descriptor:  # the error on Windows
        monkeypatch.setattr(files, "_BY_DESCRIPTOR", False)
    directory, moved, elsewhere = tmp_path / "directory", tmp_path / "moved", tmp_path / "elsewhere"
    directory.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file.new").write_bytes(b"of somebody else")
    synced = os.fsync

    def swap(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", synced)
        directory.rename(moved)
        directory.symlink_to(elsewhere)

    if not by_descriptor:
        replace_private(directory / "file", b"new")
        assert ((directory / "file").read_bytes(), _names(directory)) == (b"new", ["file"])
        return
    monkeypatch.setattr(os, "fsync", swap)
    replace_private(directory / "file", b"new")
    assert ((moved / "file").read_bytes(), _names(moved)) == (b"new", ["file"])
    assert ((elsewhere / "file.new").read_bytes(), _names(elsewhere)) == (b"of somebody else", ["file.new"])


def test_an_error_in_an_open_directory_names_the_whole_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with contextlib.closing(OpenDirectory(tmp_path)) as directory:
        for attempt in (
            lambda: directory.opener("link", os.O_RDONLY),
            lambda: directory.rename("link", "none/there"),
            lambda: directory.stat("none"),
        ):
            with pytest.raises(OSError) as raised:
                attempt()
            assert str(tmp_path) in str(raised.value)
        directory.unlink("none")
        assert (directory.exists("link"), directory.exists("none")) == (True, False)


def _try_lock(path: Path, answers: multiprocessing.SimpleQueue[bool]) -> None:
    answers.put(FileLock(path).acquire())


def _ask_another_process(path: Path) -> bool:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_try_lock, args=(path, answers))
    process.start()
    process.join()
    answer: bool = answers.get()
    return answer


@pytest.mark.long
def test_E7_a_lock_has_one_holder_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    lock = FileLock(path)
    assert lock.acquire()
    assert not _ask_another_process(path)
    assert not FileLock(path).acquire()
    lock.release()
    assert not path.exists()
    assert _ask_another_process(path)  # it ends without releasing the lock
    assert path.exists()
    after = FileLock(path)
    assert after.acquire()
    assert after.abandoned
    after.release()
    lock.release()


def test_E7_a_removed_lock_file_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner releases the lock between another process's opening and locking of the file."""
    path = tmp_path / "x.lock"
    first, second = FileLock(path), FileLock(path)
    assert first.acquire()
    opened = os.open

    def open_then_release(*args: Any, **named: Any) -> int:
        descriptor = opened(*args, **named)
        monkeypatch.undo()
        first.release()
        return descriptor

    monkeypatch.setattr(os, "open", open_then_release)
    assert second.acquire()
    assert path.exists()
    assert not FileLock(path).acquire()
    second.release()


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["append", "replace", "same size", "remove", "touch", "directory"])
def test_E5_every_change_of_an_input_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"a\n1\n2\n")
    before = FileIdentity.of(path)
    assert before is not None
    before.check(path)
    if change == "append":
        path.write_bytes(b"a\n1\n2\n3\n")
    elif change == "replace":
        (tmp_path / "other").write_bytes(b"a\n1\n2\n")
        os.utime(tmp_path / "other", ns=(before.mtime_ns, before.mtime_ns))
        (tmp_path / "other").replace(path)
    elif change == "same size":
        path.write_bytes(b"a\n2\n1\n")
        os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
    elif change == "touch":
        os.utime(path, ns=(0, 0))
    else:
        path.unlink()
        if change == "directory":
            path.mkdir()
    with pytest.raises(InputError, match=r"in\.csv: the file .* while it was read"):
        before.check(path)


def test_a_pipe_has_no_identity_and_a_missing_file_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert FileIdentity.of(tmp_path / "pipe") is None
    assert FileIdentity.of(Path("/dev/null")) is None
    with pytest.raises(InputError, match="No such file"):
        FileIdentity.of(tmp_path / "missing")


# --- outputs ----------------------------------------------------------------------------------------------------------


def _make(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(path.with_name("somewhere"))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "file":
        path.write_bytes(b"precious")


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("suffix", ["", ".part"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "link", "socket", "file"])
def test_E6_nothing_but_a_file_is_ever_replaced(tmp_path: Path, kind: str, suffix: str, replace: bool) -> None:
    path = tmp_path / "out.csv"
    _make(kind, tmp_path / f"out.csv{suffix}")
    before = _names(tmp_path)
    output = OutputPath(path, "the output", replace=replace, working=("part",), remedy="say so")
    if kind == "file" and (replace or suffix):
        check_output_paths([output])
        return
    with pytest.raises(
        ConfigurationError, match=rf"out\.csv{suffix} (is a {kind}|is a symbolic {kind}|exists; say so)"
    ):
        check_output_paths([output])
    assert _names(tmp_path) == before


@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout", "/dev/full"])
def test_E6_devices_are_refused(device: str) -> None:
    with pytest.raises(ConfigurationError, match="never replaced; write - for standard output"):
        check_output_paths([OutputPath(Path(device), "the output", replace=True, stdout=True)])


NAMES = st.sampled_from(["a", "b", "a.part", "a.resume", "b.part", "sub/../a", "./b", "link/a"])


@given(names=st.lists(NAMES, min_size=2, max_size=4), source=NAMES)
def test_E6_no_two_paths_are_one_file(tmp_path_factory: pytest.TempPathFactory, names: list[str], source: str) -> None:
    """Outputs, their working files and the inputs must be different files in any spelling of their paths."""
    folder = tmp_path_factory.mktemp("paths")
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(folder)
    outputs = [
        OutputPath(folder / name, f"output {at}", replace=True, working=("part", "resume"))
        for at, name in enumerate(names)
    ]
    used = [(folder / source).resolve()]
    for output in outputs:
        used += [output.path.resolve(), *(beside(output.path, suffix).resolve() for suffix in output.working)]
    if len(set(used)) == len(used):
        check_output_paths(outputs, {"the input": folder / source})
    else:
        with pytest.raises(ConfigurationError, match="at once; give different paths"):
            check_output_paths(outputs, {"the input": folder / source})


def test_E6_an_output_that_is_the_input_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"")
    os.link(tmp_path / "in.csv", tmp_path / "hard.csv")
    with pytest.raises(ConfigurationError, match=r"hard\.csv is the output and the input at once"):
        check_output_paths(
            [OutputPath(tmp_path / "hard.csv", "the output", replace=True)], {"the input": tmp_path / "in.csv"}
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/out", "the directory .*missing does not exist; create it first"),
        ("file/out", "the directory .*file is not a directory"),
        ("n" * 252, "is too long for a file"),
        ("ü" * 130, "is too long for a file"),
        ("", "is not the name of a file"),
    ],
)
def test_E6_a_path_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / name if name else Path("/")
    with pytest.raises(ConfigurationError, match=message):
        check_output_paths([OutputPath(path, "the output", working=("part",))])


def test_E6_a_directory_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode, **_: False)  # the tests may run as root
    with pytest.raises(ConfigurationError, match="no permission to write in the directory"):
        check_output_paths([OutputPath(tmp_path / "out", "the output")])


def test_a_directory_output_may_exist_or_not(tmp_path: Path) -> None:
    check_output_paths([OutputPath(tmp_path / "store", "the store", kind="directory")])
    check_output_paths([OutputPath(tmp_path, "the store", kind="directory", replace=True)])
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"the store .* is a file, not a directory"):
        check_output_paths([OutputPath(tmp_path / "store", "the store", kind="directory", replace=True)])


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), (" 1.5 m ", 90), ("2h", 7200), ("1d", 86400), ("250ms", 0.25)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "0", "-1s", "1w", "1s 2", "1e3", "inf", "١s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a duration is a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "rate"), [("500", 500), ("500/s", 500), ("30000/m", 500), ("3600 / h", 1)])
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "0/s", "/s", "5/w", "5/", "nan"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a rate is calls per second"):
        parse_rate(text)
