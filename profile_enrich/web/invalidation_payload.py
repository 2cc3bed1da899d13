"""Strict parsing of the invalidation webhook's body."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

from .._utils.strict_json import StrictJsonError, strict_decoder
from ..errors import InvalidKeyError
from ..profile import ProfileKey

__all__ = ["SLICE", "InvalidationPayload", "MalformedPayload", "parse_changes"]

_DECODE = strict_decoder().decode

SLICE = 250
"""The number of keys per chunk, well under a millisecond, after which other tasks run."""


class MalformedPayload(Exception):
    """The body is malformed. The message names the place, never a value, since keys are personal data."""


@dataclass(frozen=True, slots=True)
class InvalidationPayload:
    """The profiles to remove.

    Args:
        keys: these keys.
        tags: all profiles with one of these tags.
        all: everything.
    """

    keys: list[ProfileKey]
    tags: list[str]
    all: bool

    def __repr__(self) -> str:
        return f"<Changes: {len(self.keys)} keys, {len(self.tags)} tags{', all' if self.all else ''}>"


async def parse_changes(body: bytes) -> InvalidationPayload:
    """Parse the body of a call, yielding to the event loop between chunks.

    Raises:
        MalformedPayload: the body is not JSON, or not of the documented form.
    """
    document = _decode(body)
    if not isinstance(document, dict):
        raise MalformedPayload("the body must be a JSON object")
    members = cast("dict[str, Any]", document)
    if not members.keys() <= {"keys", "tags", "all"}:
        raise MalformedPayload("the body has a member other than keys, tags and all")
    if not members:
        raise MalformedPayload("the body must have keys, tags or all")
    everything = members.get("all", False)
    if not isinstance(everything, bool):
        raise MalformedPayload("all must be true or false")
    keys: list[ProfileKey] = []
    for item in _items(members, "keys"):
        keys.append(_key(item, len(keys)))
        if len(keys) % SLICE == 0:
            await asyncio.sleep(0)
    tags: list[str] = []
    for item in _items(members, "tags"):
        if not isinstance(item, str) or not item:
            raise MalformedPayload(f"tags[{len(tags)}] must be a string that is not empty")
        tags.append(item)
    return InvalidationPayload(keys, tags, everything)


def _decode(body: bytes) -> object:
    document: object = None
    problem = ""
    try:
        document = _DECODE(body.decode())
    except StrictJsonError as error:
        problem = f"the body is not JSON: {error.reason}"
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors, and quote the body
        problem = "the body is not JSON in UTF-8"
    if problem:
        raise MalformedPayload(problem)
    return document


def _items(members: dict[str, Any], name: str) -> list[Any]:
    items: object = members.get(name, [])
    if _is_array(items):
        return items
    raise MalformedPayload(f"{name} must be an array")


def _is_array(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _key(item: object, place: int) -> ProfileKey:
    fields: dict[str, Any] = {}
    if isinstance(item, str):
        fields = {"value": item}
    elif isinstance(item, dict):
        fields = cast("dict[str, Any]", item)
    if "value" not in fields or not fields.keys() <= {"type", "value"}:
        raise MalformedPayload(
            f"keys[{place}] must be a string, or an object with a value and, where it is not 'id', a type"
        )
    fault = ""
    try:
        return ProfileKey(**fields)
    except InvalidKeyError as error:
        fault = error.message
    raise MalformedPayload(f"keys[{place}]: {fault}")
