"""Messages of the Python interface, in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click

__all__ = ["in_words_of_the_command"]

_NAME = re.compile(r"(?<![\w/.`'\"=-])[a-z]+(?:_[a-z]+)+\b(?![=_(])")
"""An argument without a value, e.g. `check base_url`: only names of several words are looked for."""

_ARGUMENT = re.compile(r"(?<![\w/.`-])([a-z][a-z_]*)=(True|False|None|'[^']*'|(?=[\s,;.)\d]|$))")

_ROLE = re.compile(r"^(fields|expires_in)(?=:| must )|(?<= \()(key|filterable|types)(?=\))")
"""An argument that a message begins with, or that it names after a column, e.g. `no column 'x' (key)`."""

_ROLES: Mapping[str, str] = {
    "key": "id",
    "expires_in": "expires",
    "fields": "fields",
    "filterable": "filter",
    "types": "type",
}

_FUNCTIONS: Mapping[str, str] = {
    "list_indexes()": "`profile-enrich indexes`",
    "indexes()": "`profile-enrich indexes`",
    "entities()": "`profile-enrich entities`",
    "build_store() or ": "",
    ", or a pyarrow.DataType": "",
}

_PHRASES: Mapping[str, str] = {"allow it to shrink": "allow_shrink"}
"""Phrases of messages that name no argument, because servers show them too; and the corresponding option."""

_OF_UPSTREAM: Mapping[str, str] = {"base_url": "upstream_url", "api_key": "upstream_key", "tenant": "upstream_tenant"}
"""Arguments of the upstream source of a mirror, and their options."""

_OF_COLLECTIONS = ("encoding", "delimiter", "format")
"""Arguments without an option of `serve`: they are set in the collection's table of the configuration file."""

_OTHER_NAMES: Mapping[str, str] = {"source_format": "input_format", "target_format": "output_format"}
"""Arguments whose options are called differently; all others are the argument with dashes."""


def in_words_of_the_command(message: str) -> str:
    """Return a message with `argument=value` as `--option value`, and functions as commands.

    Errors of this package name an argument as `name=value`, so that only this function knows both vocabularies. What is
    not an option of the running command stays as it is.
    """
    context = click.get_current_context(silent=True)
    options = {parameter.name for parameter in context.command.params} if context is not None else set[str | None]()

    def spoken(found: re.Match[str]) -> str:
        name = _OTHER_NAMES.get(found[1], found[1])
        if name not in options:
            in_file = name in _OF_COLLECTIONS and "config" in options
            return f"{name} = {found[2]} (in [collections.NAME] of the --config file)" if in_file else found[0]
        option = f"--{name.replace('_', '-')}"
        value = found[2]
        if value in ("", "True", "False", "None"):
            return option
        return f"{option} {value.replace('_', '-') if name.startswith('on_') else value}"

    for function, command in _FUNCTIONS.items():
        message = re.sub(rf"(?<![\w.`]){re.escape(function)}", command, message)

    def named(found: re.Match[str]) -> str:
        name = found[0] if found[0] in options else _OF_UPSTREAM.get(found[0], "")
        return f"--{name.replace('_', '-')}" if name in options else found[0]

    written = {word for parameter in context.command.params for word in parameter.opts} if context else set[str]()

    def role(found: re.Match[str]) -> str:
        option = f"--{_ROLES[found[0]]}"
        return option if option in written else found[0]

    if "--id" in written:
        message = message.replace(
            "name the one that identifies a record: key, or --id", "name the one that identifies a record with --id"
        )
    message = _ROLE.sub(role, message)
    for phrase, option in _PHRASES.items():
        if option in options:
            message = message.replace(phrase, f"pass --{option.replace('_', '-')}")
    return re.sub(r"\bpass (?=\w+ = )", "set ", _NAME.sub(named, _ARGUMENT.sub(spoken, message)))
