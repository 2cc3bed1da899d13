"""`profile-enrich doctor`: checks of settings and connection, with remedies."""

from __future__ import annotations

import dataclasses

import click

from ..cli_wording import in_words_of_the_command
from ..doctor_checks import Finding, examine
from ..exit_codes import NOT_FOUND, guarded, run
from ..output import clean, print_json
from ..source_options import Kind, Settings, source_options

__all__ = ["doctor"]

_MARKS = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "wrong": ("WRONG", "red"),
    "skipped": ("skipped", "blue"),
}


@click.command()
@source_options
@click.option(
    "--calls",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    help="The number of lookups to measure the latency.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@guarded
def doctor(settings: Settings, calls: int, as_json: bool) -> None:
    """Check the settings, the API, the credentials, the clock, the entity or index, and the latency; print remedies.

    It looks up an unknown id. It prints no secrets and no personal data.

    Exit codes: 0 no problems, 1 problems.
    """
    kind = settings.kind()
    findings = run(_examine(settings, kind, calls, show=not as_json))
    wrong = [finding for finding in findings if finding.verdict == "wrong"]
    if as_json:
        print_json({"source": kind, "healthy": not wrong, "checks": [dataclasses.asdict(each) for each in findings]})
    elif wrong:
        click.echo(f"\n{len(wrong)} to fix.")
    else:
        click.echo("\nNothing is wrong.")
    if wrong:
        raise click.exceptions.Exit(NOT_FOUND)


async def _examine(settings: Settings, kind: Kind, calls: int, *, show: bool) -> list[Finding]:
    findings: list[Finding] = []
    async for each in examine(settings, kind, calls=calls):
        finding = dataclasses.replace(each, found=in_words_of_the_command(each.found))
        findings.append(finding)
        if show:
            _show(finding)
    return findings


def _show(finding: Finding) -> None:
    word, colour = _MARKS[finding.verdict]
    click.echo(f"{click.style(f'{word:>8}', fg=colour)}  {finding.check}: {clean(finding.found)}")
    if finding.fix:
        click.echo(f"{'':>8}  -> {clean(finding.fix)}")
