"""Compare what the vendor answers with what the mirror has, by attribute and without values."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._utils.deadline import Deadline
from ..errors import SourceError
from ..profile import ProfileKey
from ..sources.base import Found, ProfileSource
from ..store import ProfileStore
from ..store.files.row_encoder import to_json

__all__ = ["Comparison", "compare"]


@dataclass(slots=True)
class Comparison:
    """How two servers' answers differ. It holds names of attributes and counts, no id and no value.

    Args:
        same: records that are equal, or that neither has.
        different: records that both have, and that differ.
        only_vendor: records that the store lacks.
        only_store: records that the vendor lacks.
        failed: records that the vendor could not be asked for.
        attributes: for each attribute that differs, in how many records.
        types: for each attribute that differs in its JSON type only (`"1"` and `1`), in how many records.
    """

    same: int = 0
    different: int = 0
    only_vendor: int = 0
    only_store: int = 0
    failed: int = 0
    attributes: Counter[str] = field(default_factory=Counter[str])
    types: Counter[str] = field(default_factory=Counter[str])

    @property
    def equal(self) -> bool:
        """Whether nothing differs and everything could be asked for."""
        return not (self.different or self.only_vendor or self.only_store or self.failed)


async def compare(
    source: ProfileSource,
    store: ProfileStore,
    collection: str,
    ids: Iterable[str],
    *,
    concurrency: int = 8,
    timeout: float = 10.0,
) -> Comparison:
    """Ask the vendor for each of these ids, and compare with what the store has. Nothing is written.

    Args:
        source: the vendor's.
        store: any store: a mirror, a local store, a database.
        collection: its name there.
        ids: which records.
        concurrency: calls at the same time. Default 8.
        timeout: seconds for one call.

    Returns:
        Counts, by attribute.
    """
    known = store.collection(collection)
    found = Comparison()
    waiting = iter(ids)

    async def work() -> None:
        for record_id in waiting:
            here = await asyncio.to_thread(store.get, known, record_id)
            try:
                result = await source.fetch(ProfileKey(record_id), deadline=Deadline(timeout))
            except SourceError:
                found.failed += 1
                continue
            there = result.record.attributes if isinstance(result, Found) else None
            _note(found, None if here is None else here.attributes, there)

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return found


def _note(found: Comparison, here: Mapping[str, Any] | None, there: Mapping[str, Any] | None) -> None:
    if here is None or there is None:
        found.same += here is there
        found.only_vendor += here is None and there is not None
        found.only_store += there is None and here is not None
        return
    one, other = ({name: to_json(value) for name, value in each.items()} for each in (here, there))
    differing = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    found.same += not differing
    found.different += bool(differing)
    found.attributes.update(differing)
    found.types.update(name for name in differing if _text(one.get(name)) == _text(other.get(name)))


def _text(value: str | None) -> str | None:
    return None if value is None else str(json.loads(value))
