"""The account page's table: every attribute of the profile in words, for any response of the Profile API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from .catalogue import Catalogue

MONEY = {"spend", "average_basket", "coupon_savings"}
SHARES = {"own_brand_share"}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One line of the table: the attribute's name as stored, what it is called, and its value in words."""

    name: str
    title: str
    values: list[str]


def attribute_rows(profile: Mapping[str, Any], catalogue: Catalogue) -> list[Attribute]:
    """Return the attributes of a profile in the order of the response."""
    return [
        Attribute(name, name.replace("_", " ").capitalize(), list(_words(name, value, catalogue)) or ["none"])
        for name, value in profile.items()
    ]


def _words(name: str, value: object, catalogue: Catalogue) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from _words(name, item, catalogue)
    elif isinstance(value, Mapping):
        yield _object(cast("Mapping[str, object]", value), catalogue)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        yield _title(value, catalogue)
    elif name in MONEY:
        yield f"${value:,.2f}"
    elif name in SHARES:
        yield f"{value:.0%}"
    else:
        yield f"{value:,}"


def _object(value: Mapping[str, object], catalogue: Catalogue) -> str:
    match value:
        case {"department": department, "spend": int() | float() as spend, "share": int() | float() as share}:
            return f"{_title(department, catalogue)}: ${spend:,.2f} ({share:.0%})"
        case _:
            return ", ".join(f"{key}: {item}" for key, item in value.items())


def _title(value: object, catalogue: Catalogue) -> str:
    """Return the name of a product or department for its id; other values unchanged, as text."""
    text = str(value)
    if text in catalogue.products:
        return catalogue.products[text].name
    if text in catalogue.departments:
        return catalogue.departments[text].title
    return text
