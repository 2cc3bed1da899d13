"""A command whose flags can also stand in a TOML file: command line, then environment, then file, then default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import ConfigurationError
from ..server.config import read_config

__all__ = ["Configured", "config_option"]


class Configured(click.Command):
    """A command that keeps its arguments, so that they can be parsed again after a change of the file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        ctx.meta[__name__] = list(args)
        return super().parse_args(ctx, args)

    def again(self, ctx: click.Context) -> dict[str, Any]:
        """The parameters as they are now.

        Raises:
            ConfigurationError: the file is not usable any more.
        """
        problem = ""
        try:
            with self.make_context(ctx.info_name, list(ctx.meta[__name__]), parent=ctx.parent) as anew:
                return dict(anew.params)
        except click.UsageError as error:
            problem = error.format_message()
        raise ConfigurationError(problem)


def _names(command: click.Command) -> dict[str, click.Option]:
    """Each setting: the flag's name as it is in the file, e.g. `keys_file` of `--keys-file`."""
    options = [each for each in command.params if isinstance(each, click.Option) and each.name != "config"]
    return {each.opts[0].removeprefix("--").replace("-", "_"): each for each in options}


def _load(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is None:
        return None
    named = _names(ctx.command)
    problem = ""
    try:
        table, with_collections = read_config(
            value,
            named,
            many=[name for name, option in named.items() if option.multiple],
            paths=[name for name, option in named.items() if isinstance(option.type, click.Path)],
        )
        ctx.default_map = {str(named[name].name): content for name, content in table.items()}
        ctx.meta["collections"] = with_collections
    except ConfigurationError as error:
        problem = error.message
    if problem:  # click's own: it is raised while the command line is read
        raise click.UsageError(problem, ctx)
    return value


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    callback=_load,
    is_eager=True,
    envvar="PROFILE_ENRICH_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="A TOML file: [server] has these settings by their names, [collections.NAME] what the store is built from.",
)
