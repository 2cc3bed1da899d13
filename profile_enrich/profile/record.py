"""`Record`: the frozen data of a profile, shared by all requests."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any, cast

from .._utils.freeze import freeze
from .._utils.frozen_types import FrozenDict

__all__ = ["Record"]


class Record:
    """The attributes returned by a source, frozen at the load and shared by all requests.

    Args:
        attributes: the vendor's attributes, JSON-like. They are copied and frozen.
        id: the vendor's id of the profile, if any.
        source: the name of the source, e.g. `"census"`.
        truncated: whether the vendor truncated the attributes.
        loaded_at: the time of the load, in seconds since the epoch; now by default.

    Raises:
        ValueError: the attributes are nested deeper than 64 levels.
    """

    __slots__ = ("attributes", "id", "loaded_at", "namespace", "size", "source", "truncated")

    def __init__(
        self,
        attributes: Mapping[str, object],
        *,
        id: str | None = None,
        source: str = "",
        truncated: bool = False,
        loaded_at: float | None = None,
    ) -> None:
        frozen, size = freeze(attributes)
        self.attributes: Mapping[str, Any] = cast("Mapping[str, Any]", frozen)
        self.id = id
        self.source = source
        self.namespace = ""
        """The namespace of the source, set by the client."""
        self.truncated = truncated
        self.loaded_at = time.time() if loaded_at is None else loaded_at
        self.size = size + 950  # the record, its cache entry and its place in the cache
        """Its approximate memory, in bytes."""

    def renewed(self) -> Record:
        """Return the same attributes with the current load time."""
        record = copy.copy(self)
        record.loaded_at = time.time()
        return record

    def overlaid(self, attributes: Mapping[str, object]) -> Record:
        """Return the record with some attributes added or replaced."""
        record = copy.copy(self)
        record.attributes = FrozenDict({**self.attributes, **attributes})
        return record

    def __repr__(self) -> str:
        return f"<Record of {self.source or 'unnamed source'}, {len(self.attributes)} attributes>"
