"""Options that select the source; each is also a `PROFILE_ENRICH_*` variable."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import click

from ..errors import ConfigurationError

__all__ = ["Kind", "Settings", "source_options"]

Kind = Literal["census", "amperity", "store"]
F = TypeVar("F", bound=Callable[..., Any])

_KINDS: tuple[Kind, ...] = ("census", "amperity", "store")


@dataclass(frozen=True, slots=True)
class Settings:
    """The source, as given by the options."""

    source: Kind | None = None
    api_key: str | None = field(default=None, repr=False)
    entity: str | None = None
    base_url: str | None = field(default=None, repr=False)
    region: str | None = None
    index: str | None = None
    tenant: str | None = None
    token: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token_url: str | None = field(default=None, repr=False)
    store: Path | None = None
    transport: str = "auto"
    timeout: float = 10.0
    allow_insecure_http: bool = False
    batch: bool = False

    def kind(self, *allowed: Kind) -> Kind:
        """The source: the one named, else what the other options imply, else the first allowed one.

        Args:
            allowed: the sources that the command supports; all by default.

        Raises:
            ConfigurationError: the options imply two allowed sources.
        """
        if self.source is not None:
            return self.source
        possible: tuple[Kind, ...] = allowed or _KINDS
        implied: list[Kind] = [kind for kind in _KINDS if self._implies(kind)]
        fitting: list[Kind] = [kind for kind in implied if kind in possible]
        if len(fitting) > 1:
            raise ConfigurationError(
                f"the options fit {' and '.join(fitting)}; choose one with --source (or PROFILE_ENRICH_SOURCE)"
            )
        found = fitting or implied
        return found[0] if found else possible[0]

    def _implies(self, kind: Kind) -> bool:
        if kind == "store":
            return self.store is not None
        if kind == "amperity":
            return any(value is not None for value in (self.tenant, self.index, self.token, self.client_id))
        return self.api_key is not None


_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "source",
        {
            "type": click.Choice(["census", "amperity", "store"]),
            "help": "The kind of source. Default: derived from the other options.",
        },
    ),
    ("api_key", {"metavar": "KEY", "help": "Census: the workspace's API key."}),
    ("entity", {"metavar": "NAME|ID", "help": "Census and store: the entity."}),
    (
        "base_url",
        {"metavar": "URL", "help": "Of the API, e.g. http://127.0.0.1:8787/api/v1 (Census), …/api (Amperity)."},
    ),
    ("region", {"metavar": "NAME", "help": "Census: us, eu. Amperity: aws, azure, australia."}),
    ("index", {"metavar": "NAME|ID", "help": "Amperity: the index."}),
    ("tenant", {"metavar": "ID", "help": "Amperity: the tenant."}),
    ("token", {"metavar": "JWT", "help": "Amperity: an access token."}),
    ("client_id", {"metavar": "ID", "help": "Amperity: OAuth client id, in place of --token."}),
    ("client_secret", {"metavar": "SECRET", "help": "Amperity: OAuth client secret."}),
    ("token_url", {"metavar": "URL", "help": "Amperity: OAuth token endpoint."}),
    ("store", {"type": click.Path(path_type=Path), "help": "A store that `serve --store` built: no network at all."}),
    (
        "transport",
        {
            "type": click.Choice(["auto", "aiohttp", "httpx2", "httpx"]),
            "default": "auto",
            "help": "The HTTP client. Default: the best that is installed.",
        },
    ),
    (
        "timeout",
        {
            "type": click.FloatRange(min=0, min_open=True),
            "default": 10.0,
            "metavar": "SECONDS",
            "help": "For one call. Default: 10.",
        },
    ),
    ("allow_insecure_http", {"is_flag": True, "help": "Let the base URL be plain http:// on another machine."}),
]


def source_options(command: F) -> F:
    """Add the options to a command, which gets them as its first argument, a `Settings`."""
    names = {each.name for each in fields(Settings)}

    @functools.wraps(command)
    def wrapper(**given: Any) -> Any:
        settings = Settings(**{name: given.pop(name) for name in names if name in given})
        return command(settings, **given)

    wrapped: Any = wrapper
    for name, facts in reversed(_OPTIONS):
        flag = f"--{name.replace('_', '-')}"
        variable = f"PROFILE_ENRICH_{name.upper()}"
        wrapped = click.option(flag, name, envvar=variable, show_envvar=True, **facts)(wrapped)
    return cast("F", wrapped)
