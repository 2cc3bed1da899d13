"""Conversion of a vendor's JSON data to a record."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import SourceResponseError
from ..profile import Record

__all__ = ["id_tag", "make_record"]


def make_record(attributes: Mapping[str, object], *, id: str | None, source: str) -> Record:
    """Make a record of these attributes.

    Raises:
        SourceResponseError: they are nested too deeply.
    """
    try:
        return Record(attributes, id=id, source=source)
    except ValueError:
        pass
    raise SourceResponseError("the source's answer is nested too deeply")


def id_tag(id: str) -> str:
    """Return the tag of an entry stored under a secondary key, since a change feed names records by primary id."""
    return f"id\0{id}"
