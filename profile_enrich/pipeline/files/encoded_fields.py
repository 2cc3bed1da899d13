"""Added fields of records, looked up in blocks of records."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Iterator, Sequence

from ...errors import InvalidKeyError
from ...profile import Profile, ProfileKey, Record
from ..keys import key_of
from ..records.block_lookup import BatchLookup, BlockLookup
from ..records.outcome import Outcome
from .line_writer import AddedFields, Attributes
from .readers import Item

__all__ = ["ReadyFields", "blocks"]


class ReadyFields:
    """The added fields of keys; recent keys are cached.

    Args:
        lookup: reads the profiles.
        attributes: encodes the profiles as fields.
    """

    def __init__(self, lookup: BlockLookup | BatchLookup, attributes: Attributes) -> None:
        self._lookup = lookup
        self._attributes = attributes
        self._ready: dict[str, AddedFields] = {}
        self._without: dict[str, Profile | InvalidKeyError] = {}

    async def prepare(self, block: Sequence[Item]) -> ReadyBlock:
        """Look up the unknown keys of these records."""
        if len(self._ready) + len(self._without) > self._lookup.remembered:
            self._ready, self._without = {}, {}  # not cleared, because the previous block may still use it
        ready, without = self._ready, self._without
        asked: dict[str, None] = {}
        for item in block:
            key = item.key
            if type(key) is not str:
                if type(key) is not int:
                    continue  # handled singly: mostly there is nothing to look up
                key = item.key = str(key)
            if key not in ready and key not in without and key and item.fault is None:
                asked[key] = None
        ids: list[str] = []
        for key in asked:
            try:
                ids.append(ProfileKey(key).value)
            except InvalidKeyError as error:
                without[key] = error.with_traceback(None)
        prepared = ReadyBlock(self._lookup, self._attributes, ready, without)
        if ids:
            await prepared.add(ids)
        return prepared


class ReadyBlock:
    """The added fields of one block of records, from `ReadyFields.prepare`."""

    def __init__(
        self,
        lookup: BlockLookup | BatchLookup,
        attributes: Attributes,
        ready: dict[str, AddedFields],
        without: dict[str, Profile | InvalidKeyError],
    ) -> None:
        self._lookup = lookup
        self._attributes = attributes
        self._ready = ready
        self._without = without

    async def add(self, ids: list[str]) -> None:
        """Look up these ids."""
        for key, answer in (await self._lookup.read(ids)).items():
            if isinstance(answer, Profile):
                self._without[key] = answer
            else:
                self._ready[key] = self._attributes.of_attributes(answer)

    def fields(self, item: Item) -> AddedFields | None:
        """Return the fields added to a record; `None` if it has no profile, or cannot be written."""
        key = item.key
        if item.fault is not None or type(key) is not str:
            return None
        added = self._ready.get(key)
        return added if added is not None and added.fault is None else None

    async def outcome(self, item: Item) -> Outcome[Item]:
        """Return the outcome of a record for which `fields` has nothing."""
        outcome = Outcome(item.number - 1, item)
        try:
            key = key_of(item.key)
        except InvalidKeyError as error:
            outcome.problem = error.with_traceback(None)
            return outcome
        text = key.value if isinstance(key, ProfileKey) else key
        if text not in self._ready and text not in self._without:
            await self.add([text])
        answer = self._without.get(text)
        if isinstance(answer, InvalidKeyError):
            outcome.problem = answer
        elif answer is not None and answer.error is not None:
            outcome.problem = answer.error
        elif answer is not None:
            outcome.profile = answer
        else:
            read = (await self._lookup.read([text]))[text]
            outcome.profile = read if isinstance(read, Profile) else Profile(Record(read))
        return outcome


async def blocks(items: Iterator[Item], ready: ReadyFields, size: int) -> AsyncGenerator[tuple[list[Item], ReadyBlock]]:
    """Yield blocks of records with their fields. The next block is looked up meanwhile."""
    coming: asyncio.Task[ReadyBlock] | None = None
    try:
        block = list(itertools.islice(items, size))
        while block:
            prepared = await ready.prepare(block) if coming is None else await coming
            following = list(itertools.islice(items, size))
            coming = asyncio.create_task(ready.prepare(following))
            await asyncio.sleep(0)  # its requests are sent before this block is written
            yield block, prepared
            block = following
    finally:
        if coming is not None:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await coming
