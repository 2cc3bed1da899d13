"""Configuration file of the server: the `[server]` table of a TOML file.

```toml
[server]
store = "profiles.store"
port = 8787
workers = 2
keys_file = "profiles.store.keys.json"
refresh_every = "15m"

[collections.Users]               # what the store is built from; see `profile-enrich index`
source = "users.csv"
key = "user_id"
```
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from ..errors import ConfigurationError

__all__ = ["read_config"]

_TABLES = ("server", "collections")


def read_config(
    path: Path, known: Collection[str], many: Collection[str] = (), paths: Collection[str] = ()
) -> tuple[dict[str, Any], bool]:
    """Read the settings of the server from a file.

    Args:
        path: the file.
        known: the allowed names in the `[server]` table.
        many: the names whose values may be lists.
        paths: the names whose values are paths, relative to the file.

    Returns:
        The table, and whether the file has collections.

    Raises:
        ConfigurationError: the file does not exist, is not TOML, or has an unknown name. The message suggests a similar
            name and never quotes a value.
    """
    content: dict[str, Any] = {}
    problem = ""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"the configuration file {path} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = f"the configuration file {path} is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        place = str(error).rpartition("(")[2].rstrip(")")
        problem = f"the configuration file {path} is not TOML ({place})"  # without the text, which may be a key
    if problem:
        raise ConfigurationError(problem)
    for name in content:
        if name not in _TABLES:
            hint = " inside [server]" if name in known else _nearest(name, _TABLES)
            raise ConfigurationError(f"{path}: {name!r} is not known here{hint}")
    server: object = content.get("server", {})
    if not isinstance(server, dict):
        raise ConfigurationError(f"{path}: [server] must be a table")
    table = cast("dict[str, Any]", server)
    for name, value in table.items():
        if name not in known:
            raise ConfigurationError(f"{path}: [server] has no setting {name!r}{_nearest(name, known)}")
        _check(path, name, value, many)
        if name in paths:
            table[name] = [str(path.parent / each) for each in value] if name in many else str(path.parent / value)
    return table, "collections" in content


def _check(path: Path, name: str, value: object, many: Collection[str]) -> None:
    values: list[object] = [value]
    if isinstance(value, list):
        if name not in many:
            raise ConfigurationError(f"{path}: {name} takes one value, not a list")
        values = cast("list[object]", value)
    elif name in many:
        raise ConfigurationError(f'{path}: {name} takes a list, e.g. {name} = ["…"]')
    if not all(isinstance(each, str | int | float | bool) for each in values):
        raise ConfigurationError(f"{path}: {name} must be text, a number, true or false")


def _nearest(name: str, known: Collection[str]) -> str:
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else f"; known are: {', '.join(sorted(known))}"
