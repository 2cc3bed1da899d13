"""Every public name is on a reference page, and every argument, option and status is described there."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import click
import griffe
import pytest

from profile_enrich.cli.app import cli
from profile_enrich.cli.source_options import source_options
from profile_enrich.server.endpoints.openapi import ENDPOINTS

from .helpers import DOCS, ROOT, text_of

# Calls return these; users never create them.
RETURNED = {"BlockingProfileClient", "Enrichment", "PendingLookup", "Profile", "ProfileEnrichError"}
PAGES = sorted((DOCS / "reference").glob("*.md"))
_IMPORTED = re.compile(r"^from (profile_enrich[\w.]*) import (\([^)]*\)|.+)$", re.MULTILINE)


@functools.cache
def package() -> griffe.Module:
    """Read the package without importing it, so that engines that are not installed are read too."""
    loader = griffe.GriffeLoader(docstring_parser="google", search_paths=[ROOT])
    loaded = loader.load("profile_enrich")
    loader.resolve_aliases(implicit=False)
    assert isinstance(loaded, griffe.Module)
    return loaded


def directives() -> set[str]:
    return {name for page in PAGES for name in re.findall(r"^::: (profile_enrich\S*)$", page.read_text(), re.MULTILINE)}


def public_names() -> set[str]:
    """Names exported by the package and its top-level modules, and names that a document or an example imports."""
    found = {f"profile_enrich.{name}" for name in package().exports or ()}
    for name, module in package().modules.items():
        if not name.startswith("_") and name not in ("errors", "profile") and not module.is_init_module:
            found |= {f"{module.path}.{exported}" for exported in module.exports or ()}
    for page in [ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.py")]:
        for module_path, names in _IMPORTED.findall(page.read_text(encoding="utf-8")):
            for name in re.findall(r"(\w+)(?: as \w+)?(?:,|$|\))", re.sub(r"[\s()]+", " ", names).strip() + ","):
                found.add(f"{module_path}.{name}")
    return {name for name in found if not name.endswith("__")}


def resolved(name: str) -> griffe.Object:
    found = package()[name.removeprefix("profile_enrich.")]
    return found.final_target if isinstance(found, griffe.Alias) else found


def test_every_public_name_has_an_entry() -> None:
    shown = set[str]()
    for directive in directives() - {"profile_enrich"}:
        shown.add(resolved(directive).path)
        if isinstance(module := resolved(directive), griffe.Module):
            shown |= {resolved(f"{module.path}.{name}").path for name in module.exports or ()}
    missing = {name for name in public_names() if resolved(name).path not in shown}
    assert not missing, f"add a line `::: NAME` to a page of docs/reference for {sorted(missing)}"


def documented() -> Iterator[griffe.Function]:
    """Every public function, method and initializer that takes arguments."""
    for name in sorted({resolved(name).path for name in public_names()}):
        thing = resolved(name)
        if isinstance(thing, griffe.Function):
            yield thing
        elif isinstance(thing, griffe.Class):
            yield from (each for each in thing.functions.values() if not each.name.startswith("_"))


def described(docstring: griffe.Docstring | None) -> set[str]:
    sections = docstring.parsed if docstring is not None else []
    return {
        name.strip("*")
        for section in sections
        if isinstance(section, griffe.DocstringSectionParameters)
        for parameter in section.value
        for name in parameter.name.split(", ")
    }


def test_no_docstring_describes_an_argument_that_is_not_there() -> None:
    wrong = []
    for function in documented():
        taken = {parameter.name.strip("*") for parameter in function.parameters}
        wrong += [f"{function.path}: {name}" for name in described(function.docstring) - taken]
    for name in {resolved(name).path for name in public_names()}:
        thing = resolved(name)
        if isinstance(thing, griffe.Class) and "__init__" in thing.members and thing.docstring:
            taken = {parameter.name.strip("*") for parameter in thing.functions["__init__"].parameters}
            wrong += [f"{thing.path}: {each}" for each in described(thing.docstring) - taken]
    assert not wrong, "\n".join(wrong)


def test_every_argument_of_a_public_class_is_described() -> None:
    missing = []
    for name in sorted({resolved(name).path for name in public_names()}):
        thing = resolved(name)
        if not isinstance(thing, griffe.Class) or "__init__" not in thing.members or thing.name in RETURNED:
            continue
        taken = [parameter.name.strip("*") for parameter in thing.functions["__init__"].parameters][1:]
        known = described(thing.docstring) | described(thing.functions["__init__"].docstring)
        missing += [f"{thing.path}({each})" for each in taken if each not in known]
    assert not missing, "\n".join(missing)


def commands(command: click.Command, path: str = "profile-enrich") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, f"{path} {name}")


@pytest.mark.parametrize(
    ("path", "command"), list(commands(cli)), ids=lambda each: each if isinstance(each, str) else ""
)
def test_every_command_and_every_option_has_a_help_text(path: str, command: click.Command) -> None:
    assert (command.help or "").strip()
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{path} {option.opts[0]}"


@click.command()
@source_options
def with_source_options(settings: object) -> None:
    """Take the options that name a source."""


def test_every_option_that_names_a_source_is_an_environment_variable() -> None:
    for option in with_source_options.params:
        assert isinstance(option, click.Option)
        flag = max(option.opts, key=len)
        assert option.envvar == "PROFILE_ENRICH_" + flag.removeprefix("--").replace("-", "_").upper()


def test_every_status_of_the_server_has_a_cause_and_a_remedy() -> None:
    section = text_of("failing.md").split("\n## Responses of the embedded server\n", 1)[1].split("\n## ", 1)[0]
    rows = {
        int(status): (cause, remedy)
        for status, cause, remedy in re.findall(r"^\| (\d{3}) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    }
    assert {status for endpoint in ENDPOINTS for status in endpoint.errors} | {405} == set(rows)
    assert all(cause.strip() and remedy.strip() for cause, remedy in rows.values())
