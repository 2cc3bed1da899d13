"""Detection of an input file that was replaced or changed while it was read."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

__all__ = ["FileIdentity"]

_END = 2**20
"""The number of bytes hashed at each end of the file, unless the whole file is."""

_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """The identity of a regular file: device, inode, size, modification time and a digest of its content.

    Two passes over one input are two passes over the same file only if this did not change between them. A reader that
    sees every byte compares its own digest; for others, e.g. a database engine, `whole` hashes all of the file.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    digest: str
    whole: bool = False

    @classmethod
    def of(cls, path: Path, *, whole: bool = False) -> FileIdentity | None:
        """Read the identity of a file.

        Args:
            path: the file.
            whole: hash all of its bytes, about a second a gigabyte. Default: the first and the last megabyte.

        Returns:
            The identity; `None` for a pipe or device, which can be read only once.

        Raises:
            InputError: the file cannot be read.
        """
        problem = ""
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return None
            with path.open("rb") as file:
                facts = os.fstat(file.fileno())
                digest = hashlib.sha256(file.read(_END))
                if not whole:
                    file.seek(max(0, facts.st_size - _END))
                while block := file.read(_BLOCK):
                    digest.update(block)
            return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, digest.hexdigest(), whole)
        except OSError as error:
            problem = error.strerror or "it cannot be read"
        raise InputError(f"{path}: {problem}")

    def check(self, path: Path) -> None:
        """Compare with the current file of this name.

        Raises:
            InputError: the file was replaced, modified or deleted.
        """
        try:
            now = FileIdentity.of(path, whole=self.whole)
        except InputError:
            now = None
        if now == self:
            return
        what = "was removed, or is unreadable" if now is None else "changed"
        raise InputError(f"{path}: the file {what} while it was read; run again when nothing writes to it")
