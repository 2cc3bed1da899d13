"""Standard output as the output of a run, with dead letters in a file."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..._utils.output_paths import OutputPath, check_output_paths
from ..._utils.temporary_directory import temporary_directory
from .resumable_output import ResumableOutput

__all__ = ["RecordOutput", "SpooledOutput", "StreamOutput"]

_FLUSH_AFTER = 0.2
"""Seconds that records stay in the buffer of standard output, at most."""


class RecordOutput(Protocol):
    """The output of a run; see `ResumableOutput` for files."""

    @property
    def state(self) -> dict[str, Any] | None:
        """The state of an interrupted run; `None` for a new run."""
        ...

    @property
    def size(self) -> int:
        """The size of the output so far, in bytes."""
        ...

    def write(self, data: bytes, role: str = "the output") -> None:
        """Append to the output, or to another file of the run."""
        ...

    def save(self, state: Mapping[str, Any], *, done: bool = False) -> None:
        """Write a checkpoint, if supported."""
        ...

    def make(self, write: Callable[[BinaryIO, BinaryIO], None], *, packed: bool) -> None:
        """Make the output from the written part."""
        ...

    def finish(self) -> None:
        """Rename the complete files to their final paths."""
        ...

    def discard(self) -> None:
        """Remove what was written and is not in its place, after which only `close` may be called."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class StreamOutput:
    """Write records directly to standard output. It cannot be resumed.

    Args:
        more: further outputs by role, which appear at the end.
        force: replace existing files.
        inputs: the input files, by role.
    """

    state: dict[str, Any] | None = None

    def __init__(self, *, more: Mapping[str, Path], force: bool, inputs: Mapping[str, Path]) -> None:
        check_output_paths([OutputPath(path, role, replace=True) for role, path in more.items()], inputs)
        self._files = {
            role: ResumableOutput(path, job={}, resume=False, force=force, inputs=inputs) for role, path in more.items()
        }
        self._stream = sys.stdout.buffer
        self._flushing: asyncio.TimerHandle | None = None
        self.size = 0

    def write(self, data: bytes, role: str = "the output") -> None:
        """Append to standard output, which is flushed soon, since the next record may take long."""
        if role != "the output":
            self._files[role].write(data)
            return
        self._stream.write(data)
        self.size += len(data)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_FLUSH_AFTER, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        with contextlib.suppress(OSError):  # the reader is gone: the next write raises it, where it can be caught
            self._stream.flush()

    def save(self, state: Mapping[str, Any], *, done: bool = False) -> None:
        """Flush what was written so far."""
        self._stream.flush()

    def make(self, write: Callable[[BinaryIO, BinaryIO], None], *, packed: bool) -> None:
        """Do nothing, since the output is already written."""

    def finish(self) -> None:
        """Put the files in their places."""
        self._stream.flush()
        for file in self._files.values():
            if file.size or file.path.exists():
                file.save({}, done=True)
                file.finish()
            else:
                file.discard()

    def discard(self) -> None:
        """Remove the files of a failed run, which cannot be resumed."""
        for file in self._files.values():
            file.discard()

    def close(self) -> None:
        """See `discard`; what was written can still be flushed."""
        if self._flushing is not None:
            self._flushing.cancel()
        self.discard()


class SpooledOutput(ResumableOutput):
    """Standard output for an output whose columns are known only at the end: a temporary file, then copied.

    Args:
        more, force, inputs: as for `StreamOutput`.
    """

    def __init__(self, *, more: Mapping[str, Path], force: bool, inputs: Mapping[str, Path]) -> None:
        self._temporary = contextlib.ExitStack()
        path = self._temporary.enter_context(temporary_directory()) / "output"
        super().__init__(path, job={}, resume=False, force=force, more=more, inputs=inputs)

    def finish(self) -> None:
        """Rename the other files to their final paths, and copy the output to standard output."""
        super().finish()
        with self.path.open("rb") as whole:
            shutil.copyfileobj(whole, sys.stdout.buffer, 2**18)
        sys.stdout.buffer.flush()
        self.close()

    def close(self) -> None:
        """Remove the temporary file, and the other files of a failed run, which cannot be resumed."""
        self.discard()
        self._temporary.close()
