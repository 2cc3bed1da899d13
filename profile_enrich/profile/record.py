"""What a source returned, frozen once and shared by all requests."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any, cast

from .._utils.frozen import freeze
from .._utils.frozen_types import FrozenDict

__all__ = ["Record"]


class Record:
    """What a source returned: attributes, frozen once when they are loaded and shared by all who read them.

    Args:
        attributes: the vendor's attributes, JSON-like. They are copied and frozen.
        id: the vendor's own id of the profile, where it has one.
        source: the name of the source, e.g. `"census"`.
        truncated: the vendor cut attributes off.
        loaded_at: when it was loaded, in seconds since the epoch; now when not given.

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
        """The source and its tenant, as cache keys have them. The client sets it."""
        self.truncated = truncated
        self.loaded_at = time.time() if loaded_at is None else loaded_at
        self.size = size + 200  # the record and its cache entry
        """Roughly the bytes of memory that it takes."""

    def renewed(self) -> Record:
        """The same attributes, confirmed by the source just now."""
        record = copy.copy(self)
        record.loaded_at = time.time()
        return record

    def overlaid(self, attributes: Mapping[str, object]) -> Record:
        """The same record with some attributes added or replaced."""
        record = copy.copy(self)
        record.attributes = FrozenDict({**self.attributes, **attributes})
        return record

    def __repr__(self) -> str:
        return f"<Record of {self.source or 'unnamed source'}, {len(self.attributes)} attributes>"
