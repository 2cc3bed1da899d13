"""Added fields of records, looked up in blocks of records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import cast

from ...errors import InvalidKeyError
from ...profile import Profile, ProfileKey, Record
from ...profile.key import MAX_KEY_BYTES
from ..keys import key_of
from ..records.block_lookup import BatchLookup, BlockLookup
from ..records.outcome import Outcome
from .line_writer import AddedFields
from .select_reader import Block, Item

__all__ = ["ReadyBlock", "ReadyFields", "prepared"]


class ReadyFields:
    """The added fields of keys; recent keys are cached.

    Args:
        lookup: reads the profiles.
        make: encodes attributes as fields.
    """

    def __init__(self, lookup: BlockLookup | BatchLookup, make: Callable[[Mapping[str, object]], AddedFields]) -> None:
        self._lookup = lookup
        self._make = make
        self._ready: dict[str, AddedFields] = {}
        self._without: dict[str, Profile | InvalidKeyError] = {}

    async def prepare(self, block: Block) -> ReadyBlock:
        """Look up the unknown keys of these records."""
        if len(self._ready) + len(self._without) > self._lookup.remembered:
            self._ready, self._without = {}, {}  # not cleared, because the previous block may still use it
        ready, without = self._ready, self._without
        prepared = ReadyBlock(self._lookup, self._make, ready, without)
        unknown = [key for key, added in zip(block.keys, prepared.fields(block), strict=True) if added is None]
        ids: list[str] = []
        for key in dict.fromkeys(unknown):
            if key and key not in without:
                try:
                    ids.append(key if key.isascii() and len(key) <= MAX_KEY_BYTES else ProfileKey(key).value)
                except InvalidKeyError as error:
                    without[key] = error.with_traceback(None)
        if ids:
            await prepared.add(ids)
        return prepared


class ReadyBlock:
    """The added fields of one block of records, from `ReadyFields.prepare`."""

    def __init__(
        self,
        lookup: BlockLookup | BatchLookup,
        make: Callable[[Mapping[str, object]], AddedFields],
        ready: dict[str, AddedFields],
        without: dict[str, Profile | InvalidKeyError],
    ) -> None:
        self._lookup = lookup
        self._make = make
        self._ready = ready
        self._without = without

    async def add(self, ids: list[str]) -> None:
        """Look up these ids."""
        for key, answer in (await self._lookup.read(ids)).items():
            if isinstance(answer, Profile):
                self._without[key] = answer
            else:
                added = self._make(answer)
                if added.fault is None:
                    self._ready[key] = added
                else:
                    self._without[key] = Profile(Record(answer))

    def fields(self, block: Block) -> list[AddedFields | None]:
        """Return the fields added to each record; `None` for one without a profile, or if they cannot be written."""
        return [*map(cast("dict[str | None, AddedFields]", self._ready).get, block.keys)]

    async def outcome(self, item: Item) -> tuple[Outcome[Item], AddedFields | None]:
        """Return the outcome of one record, and its added fields if the key has a profile."""
        outcome = Outcome(item.number - 1, item)
        try:
            key = key_of(item.key)
        except InvalidKeyError as error:
            outcome.problem = error.with_traceback(None)
            return outcome, None
        text = key.value if isinstance(key, ProfileKey) else key
        if text not in self._ready and text not in self._without:
            await self.add([text])
        answer = self._without.get(text)
        if answer is None:
            outcome.profile = _FOUND
        elif isinstance(answer, InvalidKeyError) or answer.error is not None:
            outcome.problem = answer if isinstance(answer, InvalidKeyError) else answer.error
        else:
            outcome.profile = answer
        return outcome, self._ready.get(text)


_FOUND = Profile(Record({}))
"""Of a record whose fields are ready."""


async def prepared(items: Iterator[Block], ready: ReadyFields) -> AsyncGenerator[tuple[Block, ReadyBlock]]:
    """Yield blocks of records with their fields. The next block is looked up meanwhile."""
    coming: asyncio.Task[ReadyBlock] | None = None
    try:
        block = next(items, None)
        while block is not None:
            made = await ready.prepare(block) if coming is None else await coming
            following = next(items, None)
            if following is not None:
                coming = asyncio.create_task(ready.prepare(following))
                await asyncio.sleep(0)  # its requests are sent before this block is written
            yield block, made
            block = following
    finally:
        if coming is not None:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await coming
