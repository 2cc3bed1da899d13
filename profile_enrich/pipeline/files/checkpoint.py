"""Output that appears whole or not at all, and can be gone on with after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from ...errors import ConfigurationError

__all__ = ["CheckpointState", "Output", "PartStream", "Sink"]

_VERSION = 1

_HAND_ON = 0.2
"""Seconds that records stay in the buffer of standard output, at most."""


@dataclass(slots=True)
class CheckpointState:
    """How far a run is, as of the last checkpoint.

    Args:
        rows: records that are done.
        size: bytes of the output so far.
        dead_size: bytes of the dead letters so far.
        counts: of what became of the records.
        kinds: of the values that were added, by column: what a Parquet file's types follow from.
        read_kinds: of the input's own values, by column, where its format does not say them.
        clashes: columns that the record had already, and in how many records.
        done: all records are done; what is left is to put the files in their places.
    """

    rows: int = 0
    size: int = 0
    dead_size: int = 0
    counts: dict[str, int] = field(default_factory=dict[str, int])
    kinds: dict[str, str] = field(default_factory=dict[str, str])
    read_kinds: dict[str, str] = field(default_factory=dict[str, str])
    clashes: dict[str, int] = field(default_factory=dict[str, int])
    done: bool = False


def _sync_folder(path: Path) -> None:
    """Makes the names in a folder last through a power cut, where the system can."""
    with contextlib.suppress(OSError):  # not on Windows
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Sink(Protocol):
    """Where records go."""

    state: CheckpointState

    @property
    def size(self) -> int:
        """Bytes of the output so far."""
        ...

    def write(self, data: bytes) -> None:
        """Adds to the output."""
        ...

    def write_dead(self, data: bytes) -> None:
        """Adds a dead letter."""
        ...

    def save(self) -> None:
        """Writes a checkpoint, where there can be one."""
        ...

    def finish(self, *, packed: bool = False) -> None:
        """All was written."""
        ...

    def close(self) -> None:
        """Ends it, whole or not."""
        ...


class _Part:
    """A file that grows beside its place. Only its owner can read it."""

    def __init__(self, path: Path, size: int | None) -> None:
        self.path = path.with_name(f"{path.name}.part")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self.file: BinaryIO = os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=2**18)
        if not _locked(self.file.fileno()):
            self.file.close()
            raise ConfigurationError(f"another run writes {self.path}; wait for it to end")
        short = size is not None and os.fstat(self.file.fileno()).st_size < size
        if short:
            self.file.close()
            raise ConfigurationError(f"{self.path} is shorter than its checkpoint says; begin anew with --force")
        self.file.truncate(size or 0)
        self.file.seek(size or 0)
        self.size = size or 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.size += len(data)

    def sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def _locked(descriptor: int) -> bool:
    """Whether no other process has it. The system gives the lock up when this process ends, however it ends."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _refuse(path: Path | None) -> None:
    if path is not None and path.exists():
        raise ConfigurationError(f"{path} is there already; say --force to replace it")


class PartStream:
    """Standard output: there is nothing to go on from. The dead letters still appear whole or not at all.

    Args:
        dead: of the dead letters, where there are to be any.
        force: replace that file.

    Raises:
        ConfigurationError: the file is there already.
    """

    def __init__(self, dead: Path | None, *, force: bool) -> None:
        if not force:
            _refuse(dead)
        self.state = CheckpointState()
        self.size = 0
        self._dead = dead
        self._dead_part = None if dead is None else _Part(dead, None)
        self._stream = sys.stdout.buffer
        self._flushing: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        """Adds to the output, which is handed on soon: the next record may be a long time coming."""
        self._stream.write(data)
        self.size += len(data)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_HAND_ON, self._hand_on)

    def write_dead(self, data: bytes) -> None:
        """Adds a dead letter."""
        assert self._dead_part is not None  # noqa: S101  # only where a path was given
        self._dead_part.write(data)

    def save(self) -> None:
        """Hands on what was written so far."""
        self._stream.flush()

    def _hand_on(self) -> None:
        self._flushing = None
        with contextlib.suppress(OSError):  # who reads it is gone: the next write says so, where it can be caught
            self._stream.flush()

    def finish(self, *, packed: bool = False) -> None:
        """Puts the dead letters in their place."""
        self.save()
        part = self._dead_part
        if part is None or self._dead is None:
            return
        part.sync()
        self.close()
        if part.size:
            part.path.replace(self._dead)
        else:
            part.path.unlink()
            self._dead.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the dead letters. What a failed run left there is of no use: its output went elsewhere."""
        if self._flushing is not None:
            self._flushing.cancel()
        if self._dead_part is not None:
            self._dead_part.file.close()


class Output:
    """The output file and the dead letters, with a checkpoint beside them.

    `NAME.part` grows, `NAME.resume` says how much of it counts. A checkpoint first makes the parts last, then replaces
    the note; after a crash the parts are cut to what the note says. So nothing is lost, and nothing is there twice.

    Args:
        path: of the output.
        dead: of the dead letters, where there are to be any.
        job: what is done; only the same can be gone on with. It is written into the note, so it holds no secret.
        resume: go on with the run that was interrupted.
        force: replace the files, and an interrupted run.

    Raises:
        ConfigurationError: a file is there already, there is nothing to resume, or the input or options changed.
    """

    def __init__(self, path: Path, dead: Path | None, *, job: Mapping[str, str], resume: bool, force: bool) -> None:
        self.path = path
        self.dead = dead
        self.notes = path.with_name(f"{path.name}.resume")
        self._job = dict(job)
        self.state = CheckpointState()
        if not path.parent.is_dir():
            raise ConfigurationError(f"the folder {path.parent} is not there")
        if resume:
            self.state = self._noted()
        elif not force:
            self._refuse_to_destroy()
        else:
            self.notes.unlink(missing_ok=True)
        if not self.state.done:
            self.fresh.unlink(missing_ok=True)
        self._part: _Part | None = None
        self._dead_part: _Part | None = None
        try:
            if not self.state.done:
                self._part = _Part(path, self.state.size if resume else None)
                self._dead_part = None if dead is None else _Part(dead, self.state.dead_size if resume else None)
            if not resume:
                self.save()
        except BaseException:
            self.close()
            raise

    def _refuse_to_destroy(self) -> None:
        for path in (self.path, self.dead):
            _refuse(path)
        if self.notes.exists():
            raise ConfigurationError(
                f"a run to {self.path} was interrupted; --resume goes on with it, --force begins anew"
            )

    def _noted(self) -> CheckpointState:
        raw: Any = None
        try:
            raw = json.loads(self.notes.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            raw = {}
        if raw is None:
            raise ConfigurationError(f"there is no interrupted run to {self.path}; leave --resume out")
        state: CheckpointState | None = None
        try:
            if raw["version"] == _VERSION:
                state = CheckpointState(**raw["state"])
        except (KeyError, TypeError):
            state = None
        if state is None or not isinstance(raw.get("job"), dict):
            raise ConfigurationError(f"{self.notes} cannot be used; begin anew with --force")
        before = cast("dict[str, str]", raw["job"])
        changed = [name for name in {**before, **self._job} if before.get(name) != self._job.get(name)]
        if "dead letters" in changed and not before.get("dead letters"):
            changed.remove("dead letters")  # none was needed so far
        if changed:
            raise ConfigurationError(
                f"the interrupted run was another one ({', '.join(changed)} changed); "
                "give the same input and options, or begin anew with --force"
            )
        return state

    @property
    def size(self) -> int:
        """Bytes of the output so far."""
        return 0 if self._part is None else self._part.size

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Adds to the output."""
        assert self._part is not None  # noqa: S101  # while records are being done
        self._part.write(data)

    def write_dead(self, data: bytes) -> None:
        """Adds a dead letter."""
        assert self._dead_part is not None  # noqa: S101  # only where a path was given
        self._dead_part.write(data)

    def save(self) -> None:
        """Writes a checkpoint: what was written before it will not be written again."""
        for part in (self._part, self._dead_part):
            if part is not None:
                part.sync()
        if self._part is not None:
            self.state.size = self._part.size
        if self._dead_part is not None:
            self.state.dead_size = self._dead_part.size
        content = {"version": _VERSION, "job": self._job, "state": asdict(self.state)}
        fresh = self.notes.with_name(f"{self.notes.name}.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.notes)
        _sync_folder(self.notes.parent)

    # --- ending -----------------------------------------------------------------------------------------------------

    @property
    def part(self) -> Path:
        """Where the output grows."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def fresh(self) -> Path:
        """Where the whole output is made, when it is made of the part."""
        return self.path.with_name(f"{self.path.name}.new")

    def finish(self, *, packed: bool = False) -> None:
        """Puts the whole files in their places, and removes the note. Killed within, it can be done again.

        Args:
            packed: the output is to be compressed.
        """
        if packed and not self.fresh.exists() and self.part.exists():
            making = self.path.with_name(f"{self.path.name}.packing")
            with (
                self.part.open("rb") as plain,
                os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw,
            ):
                # Without name and time: the same records are the same bytes.
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file:
                    shutil.copyfileobj(plain, file, 2**18)
                raw.flush()
                os.fsync(raw.fileno())
            making.replace(self.fresh)
        self.close()
        if self.dead is not None:
            dead_part = self.dead.with_name(f"{self.dead.name}.part")
            if self.state.dead_size and dead_part.exists():
                dead_part.replace(self.dead)
            elif not self.state.dead_size:
                dead_part.unlink(missing_ok=True)
                self.dead.unlink(missing_ok=True)  # of an earlier run: this one has none
            _sync_folder(self.dead.parent)
        if self.fresh.exists():
            self.fresh.replace(self.path)
            self.part.unlink(missing_ok=True)
        elif self.part.exists():
            self.part.replace(self.path)
        _sync_folder(self.path.parent)
        self.notes.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the files; without `finish`, what is needed to go on stays."""
        for part in (self._part, self._dead_part):
            if part is not None:
                part.file.close()
        self._part = self._dead_part = None
