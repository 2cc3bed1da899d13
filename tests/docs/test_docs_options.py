"""The tables of options follow the code: every option is there, with its default."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import click
import pytest

from profile_enrich import (
    AmperitySource,
    Breaker,
    CensusSource,
    ClientCredentials,
    IssuerToken,
    MemorySource,
    RateLimit,
    RetryPolicy,
    StoreSource,
    TransportOptions,
)
from profile_enrich.cli.commands.enrich import enrich
from profile_enrich.cli.commands.serve import serve
from profile_enrich.cli.source_options import source_options
from profile_enrich.server import ProfileAPI
from profile_enrich.server.endpoints.change_feed import ChangeFeed
from profile_enrich.server.endpoints.openapi import ENDPOINTS

from .helpers import text_of

ARGUMENTS: dict[str, Callable[..., Any]] = {
    "### `Breaker(failures, …)`": Breaker,
    "### `RetryPolicy(attempts, …)`": RetryPolicy,
    "### `RateLimit(rate, …)`": RateLimit,
    "### `CensusSource(api_key, …)`": CensusSource,
    "### `AmperitySource(…)`": AmperitySource,
    "### `ClientCredentials(token_url, …)`": ClientCredentials,
    "### `IssuerToken(key_id, …)`": IssuerToken,
    "### `StoreSource(store, …)`": StoreSource,
    "### `MemorySource(…)`": MemorySource,
    "### `TransportOptions(…)`": TransportOptions,
    "## Options of `ProfileAPI`": ProfileAPI,
    "### `ChangeFeed(store, …)`": ChangeFeed,
}


@click.command()
@source_options
def whom(settings: object) -> None:
    """Nothing but the flags that say whom to ask."""


WHOM: set[str | None] = {parameter.name for parameter in whom.params}
FLAGS: dict[str, tuple[click.Command, set[str | None]]] = {
    "## Whom to ask": (whom, set()),
    "## Flags of `profile-enrich serve`": (serve, set()),
    "## Flags of `profile-enrich enrich`": (enrich, WHOM),
}


def rows_of(heading: str, name: str) -> dict[str, str]:
    """The first two columns of the table below a heading."""
    below = text_of("options.md").split(f"\n{heading}\n", 1)[1]
    section = re.split(r"^#", below, maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(rf"^\| `({name})` \| (.+?) \|", section, re.MULTILINE))


@pytest.mark.parametrize("heading", ARGUMENTS)
def test_every_argument_is_documented_with_its_default(heading: str) -> None:
    thing = ARGUMENTS[heading]
    rows = rows_of(heading, r"\w+")
    parameters = dict(inspect.signature(thing).parameters)
    if thing is ChangeFeed:
        del parameters["store"]  # `ProfileAPI` gives it
    assert set(rows) == set(parameters)
    for name, parameter in parameters.items():
        written = rows[name].strip("`")
        if parameter.default is inspect.Parameter.empty:
            assert written == "required", name
        elif callable(parameter.default):
            assert written.split(".")[-1] == parameter.default.__name__, name
        else:
            assert eval(written) == parameter.default, name


@pytest.mark.parametrize("heading", FLAGS)
def test_every_flag_is_documented_with_its_default(heading: str) -> None:
    command, others = FLAGS[heading]
    rows = rows_of(heading, r"--[\w-]+")
    options = {
        max(each.opts, key=len): each
        for each in command.params
        if isinstance(each, click.Option) and each.name not in others
    }
    assert set(rows) == set(options)
    for flag, option in options.items():
        written = rows[flag].strip("`")
        if option.required:
            assert written == "required", flag
        elif option.is_flag or option.multiple or option.to_info_dict()["default"] is None:
            assert written == "none", flag
        else:
            assert written == str(option.default), flag


def test_every_flag_that_says_whom_to_ask_is_a_variable() -> None:
    for option in whom.params:
        assert isinstance(option, click.Option)
        flag = max(option.opts, key=len)
        assert option.envvar == "PROFILE_ENRICH_" + flag.removeprefix("--").replace("-", "_").upper()


def test_every_status_that_the_server_describes_has_a_cause_and_a_cure() -> None:
    section = text_of("failing.md").split("\n## What the embedded server answers\n", 1)[1].split("\n## ", 1)[0]
    rows = {
        int(status): (cause, cure)
        for status, cause, cure in re.findall(r"^\| (\d{3}) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    }
    assert {status for endpoint in ENDPOINTS for status in endpoint.errors} | {405} == set(rows)
    assert all(cause.strip() and cure.strip() for cause, cure in rows.values())
