"""Read single keys from the terminal, without Enter, and wrap text to its width."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import textwrap
from collections.abc import Generator

NARROWEST = 40
"""Columns that a narrower terminal is taken to have."""


@contextlib.contextmanager
def single_keys() -> Generator[bool]:
    """Switch the terminal to single keys until the end of the block. Yields whether there is a terminal."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield False
        return
    try:
        before = termios.tcgetattr(sys.stdin)
    except (OSError, ValueError, termios.error):  # a pipe, or no standard input
        yield False
        return
    try:
        tty.setcbreak(sys.stdin)
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def read_key(seconds: float) -> str:
    """Return the key that is pressed within `seconds`, or an empty text."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace").lower() if ready else ""


def wrapped(text: str, first: str = "", rest: str | None = None) -> str:
    """Wrap each line of a text between words.

    Args:
        text: one or more lines.
        first: what a line begins with.
        rest: what its continuation begins with. Default: `first`.
    """
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    return "\n".join(
        textwrap.fill(
            line, width, initial_indent=first, subsequent_indent=first if rest is None else rest,
            break_long_words=False, break_on_hyphens=False,
        )
        for line in text.splitlines()
    )  # fmt: skip
