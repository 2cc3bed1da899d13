"""Progress of an enrichment: a bar on a terminal, JSON lines otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Generator
from typing import Any

import click
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..client.client import ProfileClient
from ..pipeline.files.file_report import FileProgress, FileReport
from ..profile import Status
from .output import fitting, note, stderr_console

__all__ = ["Meter", "metered", "report_outages"]

_EVERY = 5.0
"""Seconds between lines of JSON."""

_OUTAGE = 3.0
"""Seconds without an answer of the source after which an outage is reported."""


class _TimeLeft(ProgressColumn):
    """The column for the remaining time."""

    def render(self, task: Task) -> Text:
        """Render the remaining time, by the share of the input that this process has read."""
        return Text(task.fields["left"], style="progress.remaining")


class Meter:
    """Receives the progress of a run.

    Args:
        bar: a rich progress bar; `None` for JSON lines.
    """

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._said = time.monotonic()
        self._begun: float | None = None
        self.last: FileProgress | None = None

    def __call__(self, now: FileProgress) -> None:
        """Show one state."""
        self.last = now
        if self._begun is None and now.fraction is not None:
            self._begun = now.fraction
        if self._bar is not None:
            self._draw(self._bar, now)
        elif time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            _line("progress", self.facts(now))

    def waiting(self, seconds: float, error: str | None) -> None:
        """Report that the source does not answer.

        Args:
            seconds: the time without an answer.
            error: the code of the last error; `None` if every call is still open.
        """
        if self._bar is None:
            _line("waiting", {"seconds": round(seconds, 1), "error": error})
            return
        state = "its calls are still open" if error is None else f"last error: {error}; retrying"
        self._bar.console.print(f"The source has not answered for {seconds:.0f} s ({state}).", highlight=False)

    def facts(self, now: FileProgress) -> dict[str, Any]:
        """Return the state in numbers."""
        own = now.rows - now.resumed
        seconds = max(now.seconds, 1e-9)
        left = self._left(now)
        return {
            "rows": now.rows,
            "rows_per_second": round(own / seconds),
            "calls_saved_percent": _saved(own, now.calls),
            "calls": now.calls,
            "calls_per_second": round(now.calls / seconds, 1),
            "missing": now.missing,
            "errors": now.failed,
            "percent": None if now.fraction is None else round(100 * now.fraction, 1),
            "seconds_left": None if left is None else round(left),
        }

    def _left(self, now: FileProgress) -> float | None:
        if now.fraction is None or self._begun is None or now.fraction <= self._begun:
            return None
        return now.seconds * (1 - now.fraction) / (now.fraction - self._begun)

    def _draw(self, bar: Progress, now: FileProgress) -> None:
        facts = self.facts(now)
        left = facts["seconds_left"]
        shown: dict[str, Any] = {
            "rows": f"{now.rows:,} rows",
            "speed": f"{facts['rows_per_second']:,} rows/s",
            "saved": f"{facts['calls_saved_percent']:.1f} % calls saved",
            "calls": f"{facts['calls_per_second']:,.0f} calls/s",
            "errors": f"{now.failed:,} errors",
            "left": "" if left is None else f"{left // 60}:{left % 60:02} left",
        }
        total = None if now.fraction is None else 1.0
        if self._task is None:
            self._task = bar.add_task("Enriching", total=total, **shown)
        bar.update(self._task, completed=now.fraction or 0.0, **shown)

    # --- the end ----------------------------------------------------------------------------------------------------

    def summary(self, report: FileReport, where: str) -> None:
        """Print the summary."""
        own = report.rows - report.resumed
        if self._bar is None:
            facts = {
                "rows": report.rows,
                "written": report.written,
                "missing": report.missing,
                "keyless": report.keyless,
                "dropped": report.dropped,
                "dead": report.dead,
                "reasons": report.reasons,
                "clashes": report.clashes,
                "unseen": report.unseen,
                "problems": report.problems,
                "calls": report.calls,
                "calls_saved_percent": _saved(own, report.calls),
                "seconds": round(report.seconds, 2),
                "resumed_at": report.resumed,
            }
            _line("summary", facts)
            return
        speed = own / max(report.seconds, 1e-9)
        note(f"Wrote {report.written:,} of {report.rows:,} records{where}.")
        saved = _saved(own, report.calls)
        note(f"{report.seconds:.1f} s, {speed:,.0f} rows/s, {report.calls:,} calls, {saved:.1f} % fewer than records.")
        if report.resumed:
            note(f"{report.resumed:,} of them were done before.")
        for count, what in (
            (report.missing, "Without a profile"),
            (report.keyless, "Without a key"),
            (report.dropped, "Left out"),
        ):
            if count:
                note(f"{what}: {count:,}.")
        for problem in report.problems:
            note(f"Problem: {problem}.")
        for name, count in report.clashes.items():
            note(f"The column {name} was there already, and was kept, in {count:,} records.")
        for reason, count in sorted(report.reasons.items()):
            note(f"Dead letters, {reason}: {count:,}.")


def _saved(rows: int, calls: int) -> float:
    """Return the percentage of calls that one call per record would need and the run did not make."""
    return round(100 * max(0, rows - calls) / rows, 1) if rows else 0.0


async def report_outages(client: ProfileClient, meter: Meter) -> None:
    """Report each outage once, after `_OUTAGE` seconds without an answer."""
    answers, since, said = 0, time.monotonic(), False
    while True:
        stats, error = client.stats(), client.health().last_error
        waits = stats.in_flight > 0 or stats.breaker != "closed"
        if stats.lookups[Status.MISS] != answers or not (waits or error):
            answers, since, said = stats.lookups[Status.MISS], time.monotonic(), False
        elif waits and not said and time.monotonic() - since >= _OUTAGE:
            said = True
            meter.waiting(time.monotonic() - since, error)
        await asyncio.sleep(_OUTAGE / 10)


def _line(event: str, facts: dict[str, Any]) -> None:
    click.echo(json.dumps({"event": event, **facts}), err=True)


@contextlib.contextmanager
def metered(*, to_stdout: bool) -> Generator[Meter]:
    """Yield a meter: a bar if stderr is a terminal, otherwise JSON lines.

    Args:
        to_stdout: whether the records go to standard output, where a bar on the same terminal would overwrite them.
    """
    console = stderr_console()
    if not console.is_terminal or (to_stdout and sys.stdout.isatty()):
        yield Meter(None)
        return
    numbers = {name: TextColumn(f"{{task.fields[{name}]}}") for name in ("rows", "speed", "saved", "calls", "errors")}
    columns = fitting(
        console.width,
        (TextColumn("{task.description}"), 9, 6),
        (BarColumn(bar_width=16), 16, 5),
        (TextColumn("{task.percentage:>3.0f} %"), 5, 1),
        (numbers["rows"], 16, 2),
        (numbers["speed"], 14, 4),
        (numbers["saved"], 19, 8),
        (numbers["calls"], 14, 9),
        (numbers["errors"], 12, 3),
        (TimeElapsedColumn(), 7, 7),
        (_TimeLeft(), 12, 2),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Meter(bar)
