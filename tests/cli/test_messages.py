"""Messages of commands: the cause, the input and the remedy, in terms of the command line."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import profile_enrich
from profile_enrich.cli.app import cli
from profile_enrich.cli.cli_wording import in_words_of_the_command
from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.testing import VendorServer, faults

KEY = "k" * 20


@pytest.fixture
def vendor() -> Iterator[VendorServer]:
    with VendorServer({"u1": {"tier": "gold"}}, entity="Users", key=KEY) as running:
        yield running


def census(vendor: VendorServer, *words: str, **more: str) -> Result:
    env = {"PROFILE_ENRICH_API_KEY": KEY, "PROFILE_ENRICH_BASE_URL": vendor.base_url, "PROFILE_ENRICH_ENTITY": "Users"}
    return CliRunner(env={**env, **more}).invoke(cli, words)


# --- the vocabulary ---------------------------------------------------------------------------------------------------


def commands(group: click.Group = cli) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def messages() -> Iterator[str]:
    """Every text that this package could raise, with `…` where a value stands."""
    for path in Path(profile_enrich.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(each.value) if isinstance(each, ast.Constant) else "…" for each in node.values)


MESSAGES = [each for each in messages() if len(each) < 400 and "\n" not in each]


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: str(command.name))
def test_E9_no_option_is_called_by_the_name_of_an_argument(command: click.Command) -> None:
    """E9: every message of the package, as each command shows it, names the command's options."""
    options = {str(each.name) for each in command.params if isinstance(each, click.Option)}
    several = {each for each in options if "_" in each}
    assert len(MESSAGES) > 1000
    with click.Context(command):
        for message in MESSAGES:
            shown = in_words_of_the_command(message)
            left = set(re.findall(r"(?<![\w/.`'\"=-])([a-z]+(?:_[a-z]+)+)\b(?![(_=])", shown)) & several
            left |= set(re.findall(r"(?<![\w/.`-])([a-z][a-z_]*)=(?:True|False|None|'[^']*')", shown)) & options
            assert not left, (message, shown)


@pytest.mark.parametrize(
    ("command", "message", "shown"),
    [
        ("lookup", "check base_url and the length of the key", "check --base-url and the length of the key"),
        ("lookup", "pass allow_insecure_http=True if", "pass --allow-insecure-http if"),
        ("lookup", "the column 'base_url' is text", "the column 'base_url' is text"),
        ("lookup", "list_indexes() shows", "`profile-enrich indexes` shows"),
        (
            "serve",
            "pass encoding='cp1252' if",
            "set encoding = 'cp1252' (in [collections.NAME] of the --config file) if",
        ),
        ("enrich", "pass source_format='csv'", "pass --input-format 'csv'"),
        ("index mirror", "check base_url", "check --upstream-url"),
        ("index refresh", "allow it to shrink", "pass --allow-shrink"),
        ("index status", "allow it to shrink", "allow it to shrink"),
        ("enrich", "fields: type of 'a': 'x', or a pyarrow.DataType", "--fields: type of 'a': 'x'"),
        ("keys add", "expires_in must be a number", "--expires must be a number"),
        ("index build", "a.csv has no column 'x' (filterable); its", "a.csv has no column 'x' (--filter); its"),
        ("index build", "a.csv has no column 'x' (key); its", "a.csv has no column 'x' (--id); its"),
        ("enrich", "no column 'x' (filterable)", "no column 'x' (filterable)"),
        ("index refresh", "vanished='delete' needs changed_only=True", "--vanished 'delete' needs --changed-only"),
        ("index status", "build one with build_store() or `x`", "build one with `x`"),
    ],
)
def test_E9_what_a_command_says(command: str, message: str, shown: str) -> None:
    found: click.Command = cli
    for word in command.split():
        assert isinstance(found, click.Group)
        found = found.commands[word]
    with click.Context(found):
        assert in_words_of_the_command(message) == shown


# --- causes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "check", "advice"),
    [
        (faults.RateLimited(), "API", "Too many requests"),
        (faults.ServerError(), "API", "status page"),
        (faults.Unavailable(), "API", "status page"),
        (faults.WrongType(), "API", "is this the right API?"),
        (faults.Respond(401, {}), "credentials", "Copy the workspace's key"),
        (faults.Respond(404, {}), "API", "is this the right API?"),
    ],
)
def test_E9_the_doctor_blames_the_credentials_only_when_they_are_refused(
    vendor: VendorServer, fault: faults.Fault, check: str, advice: str
) -> None:
    vendor.always(fault, match="/entities")
    found: list[dict[str, Any]] = json.loads(census(vendor, "doctor", "--json").stdout)["checks"]
    (wrong,) = [each for each in found if each["verdict"] == "wrong"]
    assert wrong["check"] == check
    assert advice in wrong["fix"]


@pytest.mark.parametrize("command", ["lookup", "doctor"])
def test_E9_an_index_that_is_listed_twice_is_one(command: str) -> None:
    """E9: a page may repeat records of the previous page."""
    with VendorServer({"u1": {"tier": "gold"}}, entity="Users", key=KEY) as vendor:
        listed = {"data": [{"id": "idx-1", "name": "Users"}] * 2, "next_token": None}
        vendor.always(faults.Respond(200, listed), match=lambda call: call.path.endswith("/indexes"))
        env = {
            **{"PROFILE_ENRICH_TOKEN": KEY, "PROFILE_ENRICH_TENANT": "acme", "PROFILE_ENRICH_INDEX": "Users"},
            "PROFILE_ENRICH_BASE_URL": vendor.amperity_url,
        }
        done = CliRunner(env=env).invoke(cli, [command, *(["u1"] if command == "lookup" else [])])
    assert "several" not in done.output
    assert "have the name" not in done.output


@pytest.mark.parametrize("command", [["lookup", "u1"], ["entities"], ["doctor"]])
def test_E9_a_base_url_that_lacks_its_path_is_named(vendor: VendorServer, command: list[str]) -> None:
    done = census(vendor, *command, PROFILE_ENRICH_BASE_URL=vendor.base_url.removesuffix("/api/v1"))
    assert done.exit_code != 0
    assert "--base-url" in done.output
    assert "base_url" not in done.output


def test_E9_a_damaged_store_can_be_built_again(tmp_path: Path) -> None:
    """E9: the advice of each message works."""
    (tmp_path / "u.csv").write_text("id,n\n1,a\n")
    build_store(tmp_path / "s", [CollectionSpec("u", tmp_path / "u.csv")])
    for file in (tmp_path / "s").glob("*.db"):
        file.unlink()
    words = ["--entity", "u", "--store", str(tmp_path / "s")]
    damaged = CliRunner().invoke(cli, ["lookup", "1", *words])
    assert damaged.exit_code != 0
    assert "profile-enrich index build" in damaged.output
    build = ["index", "build", "--data", str(tmp_path / "u.csv"), "--store", str(tmp_path / "s")]
    assert CliRunner().invoke(cli, build).exit_code == 0
    assert CliRunner().invoke(cli, ["lookup", "1", *words]).exit_code == 0
