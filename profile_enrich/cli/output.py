"""Output of commands: tables on a terminal, JSON otherwise."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import click
from rich.console import Console
from rich.progress import ProgressColumn
from rich.table import Table
from rich.text import Text

__all__ = ["clean", "fitting", "note", "print_json", "print_mapping", "print_table", "shows_table", "stderr_console"]


def clean(value: object) -> str:
    """Return a value as one printable line, with escaped control characters, which could control a terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) in ("Zs", "Mn", "Mc")
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


def shows_table(as_json: bool) -> bool:
    """Return whether to print a table: on a terminal, unless JSON was requested."""
    return not as_json and sys.stdout.isatty()


def print_json(data: object) -> None:
    """Print indented JSON."""
    text = json.dumps(data, ensure_ascii=False, indent=2, default=str)
    click.echo(text.encode("utf-8", "backslashreplace"))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table as wide as the terminal."""
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else Text(clean(value)) for value in row))
    console = Console()
    if title is not None:
        console.print(Text(clean(title), style="italic"))
    console.print(table)


def print_mapping(data: Mapping[str, object], *, title: str | None = None) -> None:
    """Print names and values as a table."""
    print_table(("attribute", "value"), list(data.items()), title=title)


def note(text: str) -> None:
    """Print one line to stderr."""
    click.echo(text, err=True)


def stderr_console() -> Console:
    """Return the console for progress bars."""
    return Console(stderr=True)


def fitting(width: int, *columns: tuple[ProgressColumn, int, int]) -> list[ProgressColumn]:
    """Return the columns of a progress bar that fit on one line of the terminal, in their order.

    Args:
        width: the width of the terminal, in characters.
        columns: the columns with width and rank; those with a low rank are kept if space is limited.
    """
    space = width
    kept: set[int] = set()
    for at in sorted(range(len(columns)), key=lambda each: columns[each][2]):
        needed = columns[at][1] + (1 if kept else 0)
        if needed > space:
            break
        space -= needed
        kept.add(at)
    return [columns[at][0] for at in sorted(kept)]
