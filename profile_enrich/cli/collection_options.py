"""Options for the sources of collections, and the TOML file that can replace them."""

from __future__ import annotations

import functools
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from ..errors import ConfigurationError
from ..store import CollectionSpec, SqlQuery, Stream
from ..store.collection_specs import MAX_SHRINK
from ..store.input_types import FORMATS
from ..store.inputs.source_config import SQL_URL, specs_from_tables
from .build_progress import by_entity, specifications

__all__ = ["Given", "collection_options", "shrink_option", "specs_from_file", "store_option"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Given:
    """The values of the options."""

    data: Sequence[Path] = ()
    sql: Sequence[str] = ()
    url: str | None = field(default=None, repr=False)
    entities: Sequence[str] = ()
    ids: Sequence[str] = ()
    filters: Sequence[str] = ()
    types: Sequence[str] = ()
    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    rejects: Sequence[str] = ()
    config: Path | None = None

    @property
    def sources(self) -> bool:
        """Whether a source was given."""
        return bool(self.data or self.sql or self.config is not None)

    def specs(self) -> list[CollectionSpec]:
        """The collections.

        Raises:
            ConfigurationError: the options are inconsistent, or the TOML file is invalid.
        """
        if self.config is not None:
            more = ("data", "sql", "ids", "filters", "types", "format", "encoding", "delimiter", "rejects")
            if extra := [name for name in more if getattr(self, name)]:
                raise ConfigurationError(
                    f"--config replaces the other options; leave out {_flag(extra[0])}, or write it into the file"
                )
            return self.only(specs_from_file(self.config))
        if not self.data and not self.sql:
            raise ConfigurationError("pass --data FILE, --sql QUERY or --config FILE: what is it to be built from?")
        if self.sql and self.url is None:
            raise ConfigurationError(f"--sql needs the database's URL: put it into {SQL_URL} (or --url)")
        sources = [self._source(path) for path in self.data] + [SqlQuery(self.url or "", query) for query in self.sql]
        specs = specifications(sources, self.entities, self.ids, self.filters)
        names = [spec.name for spec in specs]
        types = by_entity(names, self.types, "--type")
        rejects = by_entity(names, self.rejects, "--rejects")
        return [
            self._described(replace(spec, types=dict(map(_type, types[spec.name]))), rejects[spec.name])
            for spec in specs
        ]

    def only(self, specs: list[CollectionSpec]) -> list[CollectionSpec]:
        """Return the collections named by --entity; all by default.

        Raises:
            ConfigurationError: it names an unknown collection.
        """
        known = {spec.name: spec for spec in specs}
        for name in self.entities:
            if name not in known:
                raise ConfigurationError(f"there is no collection {name!r}; there are: {', '.join(known) or 'none'}")
        return [known[name] for name in self.entities] if self.entities else specs

    def _source(self, path: Path) -> Path | Stream:
        if str(path) != "-":
            return path
        if self.format not in FORMATS:
            raise ConfigurationError(f"standard input (-) needs --format: {', '.join(FORMATS)}")
        return Stream(sys.stdin.buffer, self.format)

    def _described(self, spec: CollectionSpec, rejects: list[str]) -> CollectionSpec:
        said: dict[str, Any] = {name: getattr(self, name) for name in ("encoding", "delimiter") if getattr(self, name)}
        if said.get("delimiter") == "\\t":
            said["delimiter"] = "\t"
        if self.format is not None and isinstance(spec.source, Path):
            said["format"] = self.format
        if rejects:
            said["rejects"] = Path(rejects[-1])
        return replace(spec, **said)


def _type(given: str) -> tuple[str, Any]:
    column, equals, kind = given.rpartition("=")
    if not equals or kind not in ("text", "integer", "number", "boolean"):
        raise ConfigurationError(f"--type {given}: write COLUMN=TYPE; there are text, integer, number and boolean")
    return column, kind


def _flag(name: str) -> str:
    return f"--{({'ids': 'id', 'filters': 'filter', 'types': 'type'}).get(name, name)}"


def specs_from_file(path: Path) -> list[CollectionSpec]:
    """Read the `[collections.NAME]` tables of a TOML file; other tables are for `serve`.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or has no such table.
    """
    problem = ""
    content: dict[str, Any] = {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = f"{path} is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem = f"{path} is not TOML: {error}"
    if problem:
        raise ConfigurationError(problem)
    tables = content.get("collections")
    if not isinstance(tables, dict) or not tables:
        raise ConfigurationError(
            f"{path} has no [collections.NAME] table, e.g. [collections.Users] with source and key"
        )
    return specs_from_tables(cast("dict[str, Any]", tables), path.parent)


_OPTIONS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (
        ("--data",),
        {
            "multiple": True,
            "type": click.Path(path_type=Path, allow_dash=True),
            "metavar": "FILE",
            "help": "CSV, TSV, JSONL or Parquet; - is standard input. Several: repeat --data, --entity, --id in order.",
        },
    ),
    (
        ("--sql",),
        {"multiple": True, "metavar": "QUERY", "help": "A SELECT statement instead of a file; needs --url."},
    ),
    (
        ("--url",),
        {
            "metavar": "URL",
            "envvar": SQL_URL,
            "show_envvar": True,
            "help": "The database URL, in SQLAlchemy's form; env:NAME reads it from that variable.",
        },
    ),
    (
        ("--config",),
        {
            "type": click.Path(path_type=Path, dir_okay=False),
            "metavar": "FILE",
            "help": "A TOML file with [collections.NAME] tables, instead of these options.",
        },
    ),
    (
        ("--entity", "entities"),
        {
            "multiple": True,
            "metavar": "NAME",
            "help": "The name of the collection, e.g. Users. Default: the file's name.",
        },
    ),
    (("--id", "ids"), {"multiple": True, "metavar": "COLUMN", "help": "The column that identifies a record. [id]"}),
    (
        ("--filter", "filters"),
        {"multiple": True, "metavar": "COLUMN", "help": "A column to filter by; with several sources: ENTITY:COLUMN."},
    ),
    (
        ("--type", "types"),
        {
            "multiple": True,
            "metavar": "COLUMN=TYPE",
            "help": "Type of a CSV column: text, integer, number or boolean. Default: detected, if lossless.",
        },
    ),
    (("--format",), {"type": click.Choice(FORMATS), "help": "Format of files with another suffix, and of -."}),
    (("--encoding",), {"metavar": "NAME", "help": "Of CSV and JSONL: utf-8, cp1252, latin-1, utf-16 … [utf-8]"}),
    (("--delimiter",), {"metavar": "CHARACTER", "help": "Delimiter of CSV. Default: detected from the header line."}),
    (
        ("--rejects",),
        {
            "multiple": True,
            "metavar": "FILE",
            "help": "Leave out broken lines too, and write all rows left out here, with the reason, as JSON lines;"
            " with several sources: ENTITY:FILE.",
        },
    ),
]


def collection_options(command: F) -> F:
    """Add the options to a command, which gets a `Given` as its first argument."""
    names = {each.name for each in fields(Given)}

    @functools.wraps(command)
    def wrapper(**given: Any) -> Any:
        return command(Given(**{name: given.pop(name) for name in names if name in given}), **given)

    wrapped: Any = wrapper
    for flags, facts in reversed(_OPTIONS):
        wrapped = click.option(*flags, **facts)(wrapped)
    return cast("F", wrapped)


def shrink_option(command: F) -> F:
    """Add `--allow-shrink`."""
    option = click.option(
        "--allow-shrink",
        is_flag=True,
        help=f"Allow a collection to lose more than {MAX_SHRINK:.0%} of its records.",
    )
    return option(command)


def store_option(command: F) -> F:
    """Add `--store`, which is required."""
    option = click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        envvar="PROFILE_ENRICH_STORE",
        show_envvar=True,
        metavar="DIRECTORY",
        help="The store.",
    )
    return option(command)
