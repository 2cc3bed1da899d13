"""The permissions of a role. Fields are removed here, before a template or a response receives them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

EVERYTHING = "*"
NONE = "–"
"""The text for a missing value."""
MEMBERS = ("show", "search", "forget", "audit_log")


@dataclass(frozen=True, slots=True)
class Field:
    """One attribute of a profile, as text for a page."""

    name: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """The visible fields of a profile for a role, and the number of hidden ones."""

    fields: tuple[Field, ...]
    hidden: int


@dataclass(frozen=True, slots=True)
class Role:
    """The permissions of a role; `None` for `show` or `search` permits all."""

    name: str
    show: frozenset[str] | None
    search: frozenset[str] | None
    forget: bool
    audit_log: bool

    def view(self, attributes: Mapping[str, Any]) -> View:
        """Return the fields that the role sees, in the vendor's order."""
        seen = [name for name in attributes if self.show is None or name in self.show]
        return View(
            tuple(Field(name, name.replace("_", " ").capitalize(), _text(attributes[name])) for name in seen),
            hidden=len(attributes) - len(seen),
        )

    def kinds(self, search_by: tuple[str, ...]) -> tuple[str, ...]:
        """Return the kinds of search that both the role and the Profile API permit."""
        return tuple(kind for kind in ("id", *search_by) if self.search is None or kind in self.search)


NOBODY = Role("", frozenset(), frozenset(), forget=False, audit_log=False)
"""The role of a user whose role was removed from the file."""


def load_roles(path: Path) -> dict[str, Role]:
    """Return the roles of a file.

    Raises:
        ValueError: the file cannot be read, or something in it makes no sense; the message says where.
    """
    try:
        roles: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: the roles cannot be read: {error}") from None
    if not roles:
        raise ValueError(f"{path} names no role; write at least [admin] with show, search, forget and audit_log")
    return {name: _role(f"{path}: [{name}]", name, members) for name, members in roles.items()}


def _role(place: str, name: str, members: object) -> Role:
    table = cast("dict[str, object]", members) if isinstance(members, dict) else {}
    if sorted(table) != sorted(MEMBERS):
        raise ValueError(f"{place} must have exactly {', '.join(MEMBERS)}")
    return Role(
        name,
        show=_names(f"{place} show", table["show"]),
        search=_names(f"{place} search", table["search"]),
        forget=_flag(f"{place} forget", table["forget"]),
        audit_log=_flag(f"{place} audit_log", table["audit_log"]),
    )


def _names(place: str, value: object) -> frozenset[str] | None:
    if value == EVERYTHING:
        return None
    names = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(name, str) and name != EVERYTHING for name in names):
        raise ValueError(f'{place} must be a list of names, or "*" for everything')
    return frozenset(cast("list[str]", names))


def _flag(place: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{place} must be true or false")  # noqa: TRY004 - one kind of error for all of the file
    return value


def _text(value: object) -> str:
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return value


def heading(view: View) -> str:
    """Return the title of a profile: the person's name, if the role may see it."""
    texts = {field.name: field.text for field in view.fields if field.text != NONE}
    for name in ("display_name", "full_name", "name"):
        if name in texts:
            return texts[name]
    return " ".join(texts[name] for name in ("first_name", "last_name") if name in texts) or "Profile"
