"""The file that a run's tables are written to, and single tables in the place of older ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from . import _machine
from ._table import Table

__all__ = ["replaced", "results"]


def results(head: str, tables: list[Table], *, quick: bool, seconds: float, loads: tuple[str, str]) -> str:
    """The whole file: its head, the machine, the targets missed, the tables."""
    parts = [head]
    if quick:
        parts.append("**This was a `--quick` run: its figures mean nothing.**\n")
    when = f"{_today()}, {seconds:,.0f} s, load average {loads[0]} before and {loads[1]} after"
    parts.append("\n".join(f"- {name}: {value}" for name, value in [*_machine.facts(), ("When", when)]) + "\n")
    parts.append(f"Versions: {', '.join(f'{name} {version}' for name, version in _machine.versions())}.\n")
    parts.extend(["## Targets missed\n", *(table.markdown() for table in tables)])
    return _with_missed("\n".join(parts))


def replaced(text: str, tables: list[Table], loads: tuple[str, str]) -> str:
    """The file with these tables in the place of those that were measured before, each saying when that was.

    A table that is not in it yet is added at the end.
    """
    sections = _sections(text)
    when = f"Measured by itself on {_today()}, load average {loads[0]} before and {loads[1]} after."
    for table in tables:
        place = next((n for n, each in enumerate(sections) if each.startswith(f"## {table.title}\n")), len(sections))
        sections[place : place + 1] = [f"{table.markdown()}\n{when}\n\n"]
    return _with_missed("\n".join(each.rstrip("\n") + "\n" for each in sections))


def _with_missed(text: str) -> str:
    sections = _sections(text)
    missed = [
        f"- {each.partition(chr(10))[0].removeprefix('## ')}. {line}"
        for each in sections
        for line in each.splitlines()
        if line.startswith("Target: ") and line.endswith("MISSED.")
    ]
    place = next(n for n, each in enumerate(sections) if each.startswith("## Targets missed\n"))
    sections[place] = "## Targets missed\n\n" + ("\n".join(missed) or "None.") + "\n\n"
    return "".join(sections).rstrip() + "\n"


def _sections(text: str) -> list[str]:
    return re.split(r"^(?=## )", text, flags=re.MULTILINE)


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
