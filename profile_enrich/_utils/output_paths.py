"""Checks of output paths before a command starts to work."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigurationError
from .files import beside

__all__ = ["OutputKind", "OutputPath", "check_output_paths"]

OutputKind = Literal["file", "directory", "database", "log"]
"""How a path is written: a file that a rename puts there; a directory, which is made with its parents; a file that is
written in place; a log that is appended to, which may also be a terminal or standard error.
"""

_LONGEST_NAME = 255
"""The longest file name on common file systems, in bytes."""


@dataclass(frozen=True, slots=True)
class OutputPath:
    """One path that will be written.

    Args:
        path: the file or directory.
        role: its name in messages, e.g. `"the output"`.
        replace: whether a file that is there may be replaced. Default false. A device, a pipe, a socket, a symbolic
            link and a file of the wrong kind are never replaced.
        kind: how it is written. Default `"file"`.
        working: suffixes of the working files next to it, e.g. `("part", "resume")`.
        remedy: the remedy if it exists, e.g. `"pass force=True to replace it"`.
        stdout: whether `-` can be given in its place for standard output. Default false.
    """

    path: Path
    role: str
    replace: bool = False
    kind: OutputKind = "file"
    working: tuple[str, ...] = ()
    remedy: str = "choose another path, or move it away"
    stdout: bool = False


def check_output_paths(outputs: Iterable[OutputPath], inputs: Mapping[str, Path] | None = None) -> None:
    """Check that output paths can be written, and do not overwrite other data.

    Args:
        outputs: the paths to write.
        inputs: the paths to read, by role, e.g. `{"the input": Path("orders.csv")}`.

    Raises:
        ConfigurationError: a path is an input, another output or one of its working files, or inside of a directory
            that is one; is `-`, a device, a pipe, a socket, a symbolic link or of the wrong kind; exists and may not be
            replaced; or its directory is missing or not writable. The message names the path and its role.
    """
    taken = [(role, path, _where(path)) for role, path in (inputs or {}).items()]
    directories = {path for _, path, _ in taken if path.is_dir()}
    for output in outputs:
        _check_place(output)
        own = [(output.role, output.path, _where(output.path))]
        for suffix in output.working:
            working = beside(output.path, suffix)
            _check_kind(working, f"a working file of {output.role}", "file", stdout=False)
            own.append((f"a working file of {output.role}", working, _where(working)))
        for role, path, place in own:
            for other_role, other, other_place in taken:
                if place == other_place or _same_file(path, other):
                    raise ConfigurationError(f"{path} is {role} and {other_role} at once; give different paths")
                if other in directories and (inside := other.resolve()) != place and inside in place.parents:
                    raise ConfigurationError(f"{role} {path} is inside of {other_role}; give a path outside of it")
        taken += own
        directories |= {output.path} if output.kind == "directory" else set()


def _where(path: Path) -> Path:
    """Resolve the directory of a path, but not a final symbolic link."""
    return path.parent.resolve() / path.name


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _check_place(output: OutputPath) -> None:
    path, role = output.path, output.role
    if str(path) == "-":
        wanted = "directory" if output.kind == "directory" else "file"
        raise ConfigurationError(f"{role}: - is standard output, which this option cannot write to; name a {wanted}")
    if not path.name or "\0" in str(path):
        raise ConfigurationError(f"{role}: {str(path)!r} is not the name of a {output.kind}")
    longest = max((len(os.fsencode(beside(path, suffix).name)) for suffix in output.working), default=0)
    if max(longest, len(os.fsencode(path.name))) > _LONGEST_NAME:
        raise ConfigurationError(f"{role}: the name {path.name[:20]}… is too long for a file; give a shorter one")
    parent = path.parent
    if output.kind == "directory":  # it is made with its parents
        while not os.path.lexists(parent) and parent != parent.parent:
            parent = parent.parent
    if not parent.is_dir():
        what = "is not a directory" if parent.exists() else "does not exist; create it first"
        raise ConfigurationError(f"{role} {path}: the directory {parent} {what}")
    _check_kind(path, role, output.kind, stdout=output.stdout)
    if output.kind == "file" and os.path.lexists(path) and not output.replace:
        raise ConfigurationError(f"{role} {path} exists; {output.remedy}")
    if output.kind != "file" and path.exists():
        if not _may_write(path):
            raise ConfigurationError(f"{role} {path}: no permission to write to it")
    elif not _may_write(parent):
        raise ConfigurationError(f"{role} {path}: no permission to write in the directory {parent}")


def _may_write(path: Path) -> bool:
    mode = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _check_kind(path: Path, role: str, kind: OutputKind, *, stdout: bool) -> None:
    """Refuse what a rename would destroy although it is no file that could be replaced, or what cannot be written."""
    # A rename replaces a symbolic link itself; the others write to what it leads to.
    if kind != "file" and path.is_symlink() and not path.exists():
        raise ConfigurationError(f"{role} {path} is a symbolic link without a target; fix or remove it")
    try:
        mode = (os.lstat if kind == "file" else os.stat)(path).st_mode
    except OSError:
        return
    found = next((name for test, name in _KINDS if test(mode)), "file")
    wanted = "directory" if kind == "directory" else "file"
    if found == wanted or (kind == "log" and (found == "character device" or _is_stream_of_process(path))):
        return
    hint = "; write - for standard output" if stdout and str(path).startswith("/dev/") else ""
    never = " and is never replaced" if kind == "file" else " and is left alone"
    raise ConfigurationError(f"{role} {path} is a {found}, not a {wanted},{never}{hint}")


def _is_stream_of_process(path: Path) -> bool:
    """Whether a path is a pipe that this process has open already, such as `/dev/stderr` in a container."""
    return str(path) in ("/dev/stdout", "/dev/stderr") or str(path).startswith(("/dev/fd/", "/proc/self/fd/"))


_KINDS = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
)
