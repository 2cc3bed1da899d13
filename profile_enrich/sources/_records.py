"""From a vendor's data to a record."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import SourceResponseError
from ..profile import Record

__all__ = ["make_record"]


def make_record(attributes: Mapping[str, object], *, id: str | None, source: str) -> Record:
    """The record that these attributes make.

    Raises:
        SourceResponseError: they are nested too deeply.
    """
    try:
        return Record(attributes, id=id, source=source)
    except ValueError:
        pass
    raise SourceResponseError("the source's answer is nested too deeply")
