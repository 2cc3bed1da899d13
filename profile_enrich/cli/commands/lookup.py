"""`profile-enrich lookup`: lookup of one profile."""

from __future__ import annotations

import sys

import click

from ...client.client import ProfileClient
from ...profile import Profile, ProfileKey, Reason
from ..exit_codes import NOT_FOUND, guarded, run
from ..open_source import open_source
from ..output import note, print_json, print_mapping, shows_table
from ..source_options import Settings, source_options

__all__ = ["lookup"]


@click.command()
@click.argument("key")
@click.option(
    "--type", "key_type", default="id", metavar="TYPE", help="The type of KEY: id (default), or an attribute."
)
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
@guarded
def lookup(settings: Settings, key: str, key_type: str, as_json: bool) -> None:
    """Look up one profile and print it: on a terminal as a table, otherwise (or with --json) as JSON.

    KEY is the identifier; `-` reads it from standard input, which keeps it out of the shell's history.

    Exit codes: 0 found, 1 not found or excluded, 2 the command, the configuration or the credentials are wrong, 3 the
    source is unavailable.
    """
    text = sys.stdin.readline().rstrip("\r\n") if key == "-" else key
    profile = run(_lookup(settings, ProfileKey(text, key_type)))
    if not profile.found:
        excluded = profile.reason is Reason.EXCLUDED
        note("The source excludes this profile." if excluded else "There is no such profile.")
        raise click.exceptions.Exit(NOT_FOUND)
    if shows_table(as_json):
        print_mapping(profile.as_dict(), title=f"{profile.source}, profile {profile.id}" if profile.id else None)
    else:
        print_json(profile.as_dict())
    if profile.truncated:
        note("The source truncated the attributes; the profile is incomplete.")


async def _lookup(settings: Settings, key: ProfileKey) -> Profile:
    async with open_source(settings) as source, ProfileClient(source, deadline=settings.timeout) as client:
        return await client.get(key)
