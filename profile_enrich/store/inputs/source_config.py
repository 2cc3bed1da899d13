"""Configuration of the sources of collections: tables of a TOML file, and the store's SOURCES file.

```toml
[collections.Users]
source = "users.csv"              # relative to this file; or sql = "SELECT …" with url = "env:DATABASE_URL"
key = "user_id"
filterable = ["email", "tier"]
```

`index build` saves it in the store's directory as `SOURCES`, so a refresh needs no arguments. Database passwords are
never saved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..._utils.files import replace_private
from ...errors import ConfigurationError, StoreError
from ..collection_specs import CollectionSpec
from ..input_types import SqlQuery, Stream

__all__ = ["SQL_URL", "forget", "read_recipe", "spec_from_table", "spec_to_table", "specs_from_tables", "write_recipe"]

RECIPE = "SOURCES"

SQL_URL = "PROFILE_ENRICH_SQL_URL"
"""The environment variable with the database URL, if the URL was not saved."""

_TEXTS = ("source", "sql", "url", "key", "encoding", "delimiter", "description", "format", "rejects")
_LISTS = ("filterable", "fields", "index_fields")
_PASSWORD = re.compile(r"://[^/@]*:[^/]*@|[?&;](password|passwd|pwd|sslpassword|token)=", re.IGNORECASE)


def specs_from_tables(tables: Mapping[str, Any], base: Path) -> list[CollectionSpec]:
    """Read the specifications from the `[collections.NAME]` tables of a configuration file.

    Args:
        tables: the tables, by name of the collection.
        base: the directory for relative paths, e.g. that of the file.

    Raises:
        ConfigurationError: a table has an unknown, missing or mistyped entry; the message names it.
    """
    return [spec_from_table(name, table, base) for name, table in tables.items()]


def spec_from_table(name: str, table: object, base: Path) -> CollectionSpec:
    """Read one specification; see `specs_from_tables`."""
    where = f"[collections.{name}]"
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{where} must be a table, e.g. with source and key")
    entries = dict(cast("Mapping[str, Any]", table))
    known = (*_TEXTS, *_LISTS, "types")
    for entry, value in entries.items():
        if entry not in known:
            raise ConfigurationError(f"{where}: unknown entry {entry!r}; the entries are: {', '.join(known)}")
        if entry in _TEXTS and not isinstance(value, str):
            raise ConfigurationError(f"{where}: {entry} must be text")
        if entry in _LISTS and not _is_texts(value):
            raise ConfigurationError(f"{where}: {entry} must be a list of column names")
        if entry == "types" and not (isinstance(value, Mapping) and _is_texts(list(cast("Any", value).values()))):
            raise ConfigurationError(f"{where}: types must be a table of column names and types")
    source, sql, url = entries.pop("source", None), entries.pop("sql", None), entries.pop("url", None)
    if (source is None) == (sql is None):
        raise ConfigurationError(f"{where} needs source = FILE, or sql = QUERY with url, and not both")
    if (url is None) != (sql is None):
        raise ConfigurationError(
            f"{where}: sql and url belong together; url = 'env:NAME' takes it from the environment"
        )
    if "rejects" in entries:
        entries["rejects"] = base / entries["rejects"]
    return CollectionSpec(name, base / source if sql is None else SqlQuery(cast("str", url), sql), **entries)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value))


def spec_to_table(spec: CollectionSpec, *, keep_password: bool) -> dict[str, Any]:
    """Convert a specification to plain data, the inverse of `spec_from_table`.

    Args:
        spec: the specification.
        keep_password: whether to keep a database URL that holds a password; otherwise it is replaced by the environment
            variable `PROFILE_ENRICH_SQL_URL`.

    Raises:
        ConfigurationError: its source can be read only once, so it cannot be used for a refresh.
    """
    source = spec.source
    table: dict[str, Any]
    if isinstance(source, SqlQuery):
        secret = not keep_password and _PASSWORD.search(source.url) is not None
        table = {"sql": source.query, "url": f"env:{SQL_URL}" if secret else _absolute_url(source.url)}
    elif isinstance(source, str | Path):
        table = {"source": str(Path(source).absolute())}
    else:
        what = "a stream" if isinstance(source, Stream) else "an iterable"
        raise ConfigurationError(
            f"{spec.name!r} was built from {what}, which can be read only once; to refresh, name its source again"
        )
    table["key"] = spec.key
    for name in _LISTS:
        value = getattr(spec, name)
        if value is not None:
            table[name] = list(value)
    if spec.types:
        table["types"] = dict(spec.types)
    for name in ("encoding", "delimiter", "description", "format"):
        if getattr(spec, name):
            table[name] = getattr(spec, name)
    if spec.rejects is not None:
        table["rejects"] = str(Path(spec.rejects).absolute())
    return table


def _absolute_url(url: str) -> str:
    """Make the path in a SQLite URL absolute."""
    found = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/:?][^?]*)(\?.*)?", url)
    return url if found is None else f"{found[1]}{Path(found[2]).absolute()}{found[3] or ''}"


def write_recipe(path: Path | str, specs: Sequence[CollectionSpec]) -> list[str]:
    """Save the sources of these collections of a store; those of other collections are kept.

    Returns:
        The names of the collections whose sources can be read only once, and are not saved.
    """
    path = Path(path)
    tables, lost = _tables(path), list[str]()
    for spec in specs:
        try:
            tables[spec.name] = spec_to_table(spec, keep_password=False)
        except ConfigurationError:
            tables.pop(spec.name, None)
            lost.append(spec.name)
    _write(path, tables)
    return lost


def forget(path: Path | str, names: Iterable[str]) -> None:
    """Delete the saved sources of these collections."""
    path, tables = Path(path), _tables(Path(path))
    for name in names:
        tables.pop(name, None)
    _write(path, tables)


def _write(path: Path, tables: Mapping[str, Any]) -> None:
    replace_private(path / RECIPE, json.dumps({"collections": tables}, indent=1, ensure_ascii=False).encode())


def read_recipe(path: Path | str) -> list[CollectionSpec]:
    """Read the saved sources of a store's collections.

    Raises:
        StoreError: the file is damaged.
    """
    return specs_from_tables(_tables(Path(path)), Path(path))


def _tables(path: Path) -> dict[str, Any]:
    problem = ""
    try:
        return dict(json.loads((path / RECIPE).read_bytes())["collections"])
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = f"{path / RECIPE} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        problem = f"{path / RECIPE} is damaged; delete it, and specify the sources again"
    raise StoreError(problem)
