"""The root command `profile-enrich`."""

from __future__ import annotations

import click

from .._version import __version__
from .commands.doctor import doctor
from .commands.enrich import enrich
from .commands.export import export
from .commands.index import index
from .commands.keys import keys
from .commands.lists import entities, indexes
from .commands.lookup import lookup
from .commands.openapi import openapi
from .commands.serve import serve

__all__ = ["cli"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="profile-enrich")
def cli() -> None:
    """Customer profiles on every request, and on every record of a pipeline.

    Every option can also be set as a PROFILE_ENRICH_* variable. Use variables for secrets, because other users of the
    machine can see command lines.

    Exit codes: 0 done, 1 no such profile (lookup) or something is wrong (doctor), 2 the command, the configuration or
    the credentials are wrong, 3 the source is unavailable, 128 + n ended by signal n (130 for Ctrl-C). `enrich` has its
    own exit codes; see its --help.
    """


for _command in (serve, index, lookup, entities, indexes, export, enrich, doctor, keys, openapi):
    cli.add_command(_command)
