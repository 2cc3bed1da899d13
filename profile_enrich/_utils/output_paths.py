"""Check every path that a command is going to write, before its work begins."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigurationError
from .files import beside

__all__ = ["OutputPath", "check_output_paths"]

_LONGEST_NAME = 255
"""Bytes of a file name on every common file system."""


@dataclass(frozen=True, slots=True)
class OutputPath:
    """One path that will be written.

    Args:
        path: the file or directory.
        role: its name in messages, e.g. `"the output"`.
        replace: whether what is there may be replaced. Default false. A device, a pipe, a socket, a symbolic link and a
            file of the wrong kind are never replaced.
        kind: `"file"` or `"directory"`. Default `"file"`.
        working: suffixes of the working files that are written beside it, e.g. `("part", "resume")`.
        remedy: what to do when something is there, e.g. `"pass force=True to replace it"`.
    """

    path: Path
    role: str
    replace: bool = False
    kind: Literal["file", "directory"] = "file"
    working: tuple[str, ...] = ()
    remedy: str = "choose another path, or move it away"


def check_output_paths(outputs: Iterable[OutputPath], inputs: Mapping[str, Path] | None = None) -> None:
    """Refuse output paths that cannot be written, or that would destroy something.

    Args:
        outputs: what will be written.
        inputs: what will be read, by role, e.g. `{"the input": Path("orders.csv")}`.

    Raises:
        ConfigurationError: a path is an input, another output or one of its working files; is a device, a pipe, a
            socket, a symbolic link or of the wrong kind; exists and may not be replaced; or its directory is missing
            or not writable. The message names the path and its role.
    """
    taken = [(role, path, _where(path)) for role, path in (inputs or {}).items()]
    for output in outputs:
        _check_place(output)
        own = [(output.role, output.path, _where(output.path))]
        for suffix in output.working:
            working = beside(output.path, suffix)
            _check_kind(working, f"a working file of {output.role}", "file")
            own.append((f"a working file of {output.role}", working, _where(working)))
        for role, path, place in own:
            for other_role, other, other_place in taken:
                if place == other_place or _same_file(path, other):
                    raise ConfigurationError(f"{path} is {role} and {other_role} at once; give different paths")
        taken += own


def _where(path: Path) -> Path:
    """The path itself with its directory resolved: a final symbolic link is a name of its own."""
    return path.parent.resolve() / path.name


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _check_place(output: OutputPath) -> None:
    path, role = output.path, output.role
    if not path.name or "\0" in str(path):
        raise ConfigurationError(f"{role}: {str(path)!r} is not the name of a {output.kind}")
    longest = max((len(os.fsencode(beside(path, suffix).name)) for suffix in output.working), default=0)
    if max(longest, len(os.fsencode(path.name))) > _LONGEST_NAME:
        raise ConfigurationError(f"{role}: the name {path.name[:20]}… is too long for a file; give a shorter one")
    parent = path.parent
    if not parent.is_dir():
        what = "is not a directory" if parent.exists() else "does not exist; create it first"
        raise ConfigurationError(f"{role} {path}: the directory {parent} {what}")
    _check_kind(path, role, output.kind)
    if os.path.lexists(path) and not output.replace:
        raise ConfigurationError(f"{role} {path} exists; {output.remedy}")
    if not os.access(parent, os.W_OK | os.X_OK) and not (output.kind == "directory" and path.is_dir()):
        raise ConfigurationError(f"{role} {path}: no permission to write in the directory {parent}")


def _check_kind(path: Path, role: str, kind: str) -> None:
    """Refuse what a rename would destroy although it is no file that could be replaced."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    found = next((name for test, name in _KINDS if test(mode)), None)
    if found == kind or (found is None and kind == "file"):
        return
    hint = "; write - for standard output" if str(path).startswith("/dev/") else ""
    found = found or "file"
    raise ConfigurationError(f"{role} {path} is a {found}, not a {kind}, and is never replaced{hint}")


_KINDS = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
)
