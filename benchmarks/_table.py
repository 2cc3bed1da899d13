"""Tables, as text for the terminal and as Markdown for the file; and the command line of each script."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Table", "Verdict", "main"]


@dataclass(frozen=True)
class Verdict:
    """A target, and what came out."""

    target: str
    measured: str
    met: bool

    def __str__(self) -> str:
        return f"Target: {self.target}. Measured: {self.measured}: {'met' if self.met else 'MISSED'}."


@dataclass
class Table:
    """What one measurement found: a title, rows of text (the first column names the contender), and remarks."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Table:
        """A table that another process sent: `dataclasses.asdict` of it, as JSON."""
        return cls(
            facts["title"],
            tuple(facts["columns"]),
            [tuple(row) for row in facts["rows"]],
            facts["notes"],
            [Verdict(**verdict) for verdict in facts["verdicts"]],
        )

    def add(self, *cells: object) -> None:
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(tuple(str(cell) for cell in cells))

    def text(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [self.title, "=" * len(self.title)]
        for row in (self.columns, tuple("-" * width for width in widths), *self.rows):
            cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *self._remarks()]) + "\n"

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", _line(self.columns), _line(["---", *["---:"] * (len(self.columns) - 1)])]
        lines.extend(_line(row) for row in self.rows)
        for remark in self._remarks():
            lines.extend(["", remark])
        return "\n".join(lines) + "\n"

    def _remarks(self) -> list[str]:
        return [*map(str, self.verdicts), *self.notes]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(run: Callable[[bool], list[Table]]) -> None:
    """Runs one script from the command line."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to check that it works")
    for table in run(parser.parse_args().quick):
        print(table.text())
