"""Atomic output files that a later run can resume."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..._utils.files import FileLock, OpenDirectory, beside
from ..._utils.output_paths import OutputPath, check_output_paths
from ...errors import ConfigurationError

__all__ = ["ResumableOutput", "naming"]

_VERSION = 2

_WORKING = ("lock", "part", "resume", "resume.new", "making", "new")
"""What is written beside an output: its lock, what is done so far, the checkpoint, and the whole file being made."""

_LEFT = ("part", "making", "new")
"""Of these, what a killed run leaves beside its checkpoint."""


@contextlib.contextmanager
def naming(path: Path) -> Generator[None]:
    """Add the file's name to a system error (a full disk, a lost mount) without one."""
    failure: OSError | None = None
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        failure = OSError(error.errno, error.strerror, str(path))
    if failure is not None:
        raise failure


class _Part:
    """A private file next to the final path, which is appended to."""

    def __init__(self, directory: OpenDirectory, path: Path, size: int) -> None:
        self.path = path
        with naming(path):
            # Not "w+b": what counts of an earlier run stays.
            descriptor = directory.opener(path.name, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0))
            self._file: BinaryIO = os.fdopen(descriptor, "r+b", buffering=2**18)
            if os.fstat(self._file.fileno()).st_size < size:
                self._file.close()
                raise ConfigurationError(f"{path} is shorter than its checkpoint says; pass force=True to start over")
            self._file.truncate(size)
            self._file.seek(size)
        self.size = size
        self.write_bytes = self._file.write

    def write(self, data: bytes) -> None:
        try:
            self.write_bytes(data)
        except OSError as error:
            failure = OSError(error.errno, error.strerror, str(self.path))
        else:
            self.size += len(data)
            return
        raise failure

    def sync(self) -> None:
        with naming(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        # Data that could not be flushed on a full disk are after the last checkpoint, and are written again.
        with contextlib.suppress(OSError):
            self._file.close()


class ResumableOutput:
    """Write output files that appear complete, and that a killed run can resume.

    `NAME.part` is appended to; `NAME.resume`, the checkpoint, holds its valid length. A checkpoint syncs the parts and
    then replaces that file; after a crash, the parts are truncated to the valid length, so nothing is lost or written
    twice. `NAME.lock` is held from before the first access to these files until the last rename, and their directory
    is held open: something else that takes its path meanwhile, e.g. a symbolic link, gets none of them.

    Args:
        path: the output.
        more: further outputs by role, e.g. `{"the dead letters": path}`. One that stays empty does not appear.
        job: the settings of the run; only the same job can be resumed. It is written to disk, so it must not hold
            secrets.
        resume: resume an interrupted run of this job, or start a new one.
        force: replace existing output files, and an interrupted run of another job.
        inputs: the input files, by role.

    Attributes:
        state: the state in the checkpoint of the resumed run; `None` for a new run.

    Raises:
        ConfigurationError: a path cannot be written or would destroy something, another run writes it, or an
            interrupted run exists and is not to be resumed.
    """

    def __init__(
        self,
        path: Path,
        *,
        job: Mapping[str, str],
        resume: bool,
        force: bool,
        more: Mapping[str, Path] | None = None,
        inputs: Mapping[str, Path] | None = None,
    ) -> None:
        self.path = path
        self.state: dict[str, Any] | None = None
        self._outputs = {"the output": path, **(more or {})}
        self._job = dict(job)
        self._parts: dict[str, _Part] = {}
        self._owns = False
        check_output_paths(
            [
                OutputPath(each, role, replace=True, working=_WORKING, stdout=role == "the output")
                for role, each in self._outputs.items()
            ],
            inputs,
        )
        self._locks: dict[str, FileLock] = {}
        try:
            self._lock()
            self._sizes = dict.fromkeys(self._outputs, 0)
            self._replace = force
            note = self._read_note(resume=resume, force=force)
            self._check_existing(note, force=force)
            self._owns = True
            if note is None:
                self.save({})
            else:
                self.state = note["state"]
            if note is None or not note["done"]:
                for role, each in self._outputs.items():
                    directory = self._locks[role].directory
                    for suffix in ("making", "new"):
                        directory.unlink(f"{each.name}.{suffix}")
                    self._parts[role] = _Part(directory, beside(each, "part"), self._sizes[role])
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        for role, path in self._outputs.items():
            lock = self._locks[role] = FileLock(beside(path, "lock"))
            if not lock.acquire():
                raise ConfigurationError(f"another run writes {lock.path.with_suffix('')}; wait until that has ended")

    # --- the checkpoint ---------------------------------------------------------------------------------------------

    @property
    def _directory(self) -> OpenDirectory:
        return self._locks["the output"].directory

    @property
    def _note(self) -> Path:
        return beside(self.path, "resume")

    def _read_note(self, *, resume: bool, force: bool) -> dict[str, Any] | None:
        """Return the checkpoint to resume from; `None` for a new run."""
        try:
            with open(self._note.name, "rb", opener=self._directory.opener) as file:
                raw: Any = json.load(file)
        except FileNotFoundError:
            return None
        except ValueError:
            raw = {}
        problem = self._mismatch(raw)
        if problem is None and resume:
            note = cast("dict[str, Any]", raw)
            self._sizes |= {role: size for role, size in note["sizes"].items() if role in self._sizes}
            self._replace = force or bool(note["replace"])
            return note
        if force:
            return None
        problem = problem or f"a run to {self.path} was interrupted; pass resume=True to resume it"
        raise ConfigurationError(f"{problem}, or pass force=True to start over")

    def _mismatch(self, note: Any) -> str | None:
        """Return the reason why a checkpoint cannot be used."""
        found = cast("dict[str, Any]", note) if isinstance(note, dict) else {}
        job, state, sizes = found.get("job"), found.get("state"), found.get("sizes")
        usable = isinstance(job, dict) and isinstance(state, dict) and isinstance(sizes, dict)
        if found.get("version") != _VERSION or not usable:
            return f"{self._note} is damaged or of another version; remove it"
        before = cast("dict[str, str]", job)
        changed = [name for name in {**before, **self._job} if before.get(name) != self._job.get(name)]
        changed = [name for name in changed if name not in self._outputs or before.get(name)]  # one that came later
        if not changed:
            return None
        return (
            f"the interrupted run to {self.path} was another one ({', '.join(changed)} changed); "
            "give the same input and options"
        )

    def _check_existing(self, note: dict[str, Any] | None, *, force: bool) -> None:
        """Check that existing files may be replaced."""
        known = note is not None or self._directory.exists(self._note.name)
        for role, path in self._outputs.items():
            lock = self._locks[role]
            for suffix in _LEFT:
                left = beside(path, suffix)
                if lock.directory.exists(left.name) and not known and not lock.abandoned:
                    raise ConfigurationError(
                        f"{left} exists and does not belong to an interrupted run of this output; move it away"
                    )
            waiting = any(lock.directory.exists(f"{path.name}.{suffix}") for suffix in ("part", "new"))
            placed = note is not None and note["done"] and not waiting
            if lock.directory.exists(path.name) and not (force or self._replace or placed):
                raise ConfigurationError(f"{path} exists; pass force=True to replace it")

    @property
    def size(self) -> int:
        """The size of the output so far, in bytes."""
        part = self._parts.get("the output")
        return 0 if part is None else part.size

    def write(self, data: bytes, role: str = "the output") -> None:
        """Append to a file."""
        self._parts[role].write(data)

    def save(self, state: Mapping[str, Any], *, done: bool = False) -> None:
        """Write a checkpoint: data written before it are not written again.

        Args:
            state: the state for a resumed run, as JSON data.
            done: whether all records are written, so that only the renames are left.
        """
        for role, part in self._parts.items():
            part.sync()
            self._sizes[role] = part.size
        content = {
            "version": _VERSION,
            "job": self._job,
            "replace": self._replace,
            "sizes": self._sizes,
            "done": done,
            "state": dict(state),
        }
        with naming(self._note):
            self._directory.replace_private(self._note.name, json.dumps(content).encode())

    # --- the end ----------------------------------------------------------------------------------------------------

    @property
    def part(self) -> Path:
        """The path of the incomplete output."""
        return beside(self.path, "part")

    def make(self, write: Callable[[BinaryIO, BinaryIO], None], *, packed: bool) -> None:
        """Make the output from the part after the last record. After a kill, it is made again.

        Args:
            write: its arguments are the part, to read, and the output, to write.
            packed: compress it with gzip, without name and time: the same records are the same bytes.
        """
        name, opener = self.path.name, self._directory.opener
        if self._directory.exists(f"{name}.new") or not self._directory.exists(self.part.name):
            return  # made before the run was killed
        making = beside(self.path, "making")
        self._directory.unlink(making.name)
        with (
            naming(making),
            self._directory.removed_on_signal(making.name),
            open(self.part.name, "rb", opener=opener) as part,
            open(making.name, "xb", buffering=2**18, opener=opener) as raw,
        ):
            if packed:
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file:
                    write(part, cast("BinaryIO", file))
            else:
                write(part, raw)
            raw.flush()
            os.fsync(raw.fileno())
        self._directory.rename(making.name, f"{name}.new")

    def finish(self) -> None:
        """Rename the complete files to their final paths, and remove the checkpoint. After a kill, this can be
        repeated.

        Raises:
            ConfigurationError: the file was created meanwhile, and `force` is false.
        """
        self._close_parts()
        for role, path in self._outputs.items():
            directory = self._locks[role].directory
            name, part, made = path.name, f"{path.name}.part", f"{path.name}.new"
            exists, has_part, is_made = map(directory.exists, (name, part, made))
            if exists and not self._replace and (has_part or is_made):
                raise ConfigurationError(
                    f"{path} was made by somebody else while the run was writing it; move it away and resume the run"
                )
            if role != "the output" and not self._sizes[role] and not exists:
                directory.unlink(part)
            elif is_made:
                directory.unlink(part)  # first: without it the output is known to be in its place, or in `made`
                directory.rename(made, name)
            elif has_part:
                directory.rename(part, name)
            directory.sync()
        self._directory.unlink(self._note.name)
        ResumableOutput.close(self)

    def discard(self) -> None:
        """Remove all files of this run that were not renamed, and close."""
        if self._owns:
            self._close_parts()
            for role, path in self._outputs.items():
                for suffix in _LEFT:
                    self._locks[role].directory.unlink(f"{path.name}.{suffix}")
            self._directory.unlink(self._note.name)
        ResumableOutput.close(self)

    def close(self) -> None:
        """Close the files and release the locks. Without `finish`, a later run can resume."""
        self._close_parts()
        self._owns = False
        for lock in self._locks.values():
            lock.release()

    def _close_parts(self) -> None:
        for part in self._parts.values():
            part.close()
        self._parts = {}
