"""Look keys up a block at a time, where one call of the source answers for many of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, cast

from ..._utils.frozen import freeze
from ...client.client import ProfileClient
from ...errors import SourceError, SourceResponseError
from ...profile import Profile, ProfileKey, Reason, Record, Status
from ...sources.base import BatchSource, Found, LocalSource, NotFound
from ..options import EnrichOptions

__all__ = ["BatchLookup", "BlockLookup", "block_lookup"]

Attributes = Mapping[str, object]
Answers: TypeAlias = "dict[str, Attributes | Profile]"
_Read = Callable[[Sequence[str]], Mapping[str, Attributes]]


class BlockLookup:
    """Reads the profiles of many keys with one call of a local source.

    A load per key costs far more than the read itself, and what it is for (limits, retries, sharing) is of no use with
    a source on this machine. Each key counts as one call of the source. Made by `BlockLookup.of`.
    """

    block = 1024
    """Records that are looked up together."""

    remembered = 65_536
    """Keys whose answers are worth keeping: reading them again is cheap."""

    def __init__(self, client: ProfileClient, read: _Read) -> None:
        self._client = client
        self._read = read

    @classmethod
    def of(cls, client: ProfileClient) -> BlockLookup | None:
        """Return the block lookup of a client.

        Returns:
            `None` when keys have to be looked up one by one: the source is not on this machine, hooks want to see each
            lookup, a rate limit or the cache of a client that was used before has to be kept to, or it was closed.
        """
        source = client.source
        if not isinstance(source, LocalSource) or not _unobserved(client):
            return None
        read = source.local_reader()
        return None if read is None else cls(client, read)

    async def read(self, ids: Sequence[str]) -> Answers:
        """Do the same as `attributes`."""
        return self.attributes(ids)

    def attributes(self, ids: Sequence[str]) -> Answers:
        """Return for each id its attributes; or the profile that says why there are none.

        Args:
            ids: different primary ids.
        """
        observer = self._client._observer
        observer.source_calls += len(ids)
        answers: dict[str, Attributes | Profile] = {}
        try:
            answers.update(self._read(ids))
        except SourceError:
            for each in ids:  # one of them: the others are not to blame
                try:
                    answers.update(self._read([each]))
                except SourceError as error:
                    answers[each] = _without(error.with_traceback(None))
        for each in ids:
            answer = answers.setdefault(each, _NOT_FOUND)
            if not isinstance(answer, Profile) and not _SCALARS.issuperset(map(type, answer.values())):
                try:
                    answers[each] = cast("Attributes", freeze(answer)[0])
                except ValueError:
                    answers[each] = _without(SourceResponseError("the source's answer is nested too deeply"))
        return answers

    def profiles(self, keys: Iterable[ProfileKey]) -> dict[ProfileKey, Profile] | None:
        """Return a profile for each key, as `lookup_many` does; `None` when one of them is not a primary id."""
        asked = list(keys)
        if any(key.type != "id" for key in asked):
            return None
        name = self._client.source.name
        found: dict[ProfileKey, Profile] = {}
        answers = self.attributes([key.value for key in asked])
        for key in asked:
            answer = answers[key.value]
            if not isinstance(answer, Profile):
                answer = Profile(Record(answer, id=key.value, source=name), status=Status.MISS)
            found[key] = answer
        return found


class BatchLookup:
    """Reads the profiles of many keys with as few calls of a source that has batches as possible.

    A call that succeeds needs no load per key. One that fails is left to `ProfileClient.lookup_many`, which retries,
    and waits for the circuit breaker.

    Args:
        client: of the source.
        source: the same.
        options: `window`, `concurrency` and `retry_timeout` count.
    """

    remembered = 1_000_000
    """Keys whose answers are worth keeping: a call costs more than the memory."""

    def __init__(self, client: ProfileClient, source: BatchSource, options: EnrichOptions) -> None:
        self.block = max(source.batch_size, options.window // 2)  # one block is asked for while another one is written
        self._client = client
        self._source = source
        self._options = options
        self._slots = asyncio.Semaphore(options.concurrency)

    async def read(self, ids: Sequence[str]) -> Answers:
        """Return for each id its attributes; or the profile that says why there are none.

        Args:
            ids: different primary ids.

        Raises:
            SourceAuthError, ConfigurationError, ClientClosed: no key can be looked up.
        """
        size, rest = self._source.batch_size, iter(ids)
        parts = iter(lambda: list(itertools.islice(rest, size)), [])
        answers: Answers = {}
        for some in await asyncio.gather(*map(self._ask, parts)):
            answers.update(some)
        failed = [id for id in ids if id not in answers]
        if failed:
            options = self._options
            profiles = await self._client.lookup_many(
                failed, concurrency=options.concurrency, retry_timeout=options.retry_timeout
            )
            for id, profile in profiles.items():
                answers[str(id)] = profile.attributes if profile.found else profile
        return answers

    async def _ask(self, ids: list[str]) -> Answers:
        """Return what one call answers; nothing when it failed, or cannot be made now."""
        answers: Answers = {}
        keys = [ProfileKey(id) for id in ids]
        async with self._slots:
            try:
                found = await self._client._loader.ask_together(keys)
            except Exception:  # noqa: BLE001  # each key is asked for again, where what fails is reported
                return answers
        for key in keys:
            answer = found.get(key)
            if isinstance(answer, Found):
                answers[key.value] = answer.record.attributes
            elif isinstance(answer, NotFound):
                answers[key.value] = _NOT_FOUND
        return answers


def block_lookup(client: ProfileClient, options: EnrichOptions) -> BlockLookup | BatchLookup | None:
    """Return how a client's keys are looked up a block at a time; `None` when they have to be looked up one by one."""
    local = BlockLookup.of(client)
    source = client.source
    if local is None and isinstance(source, BatchSource) and source.batch_size > 1:
        return BatchLookup(client, source, options) if _unobserved(client) and client._shared is None else None
    return local


def _unobserved(client: ProfileClient) -> bool:
    """Whether no hook, rate limit or cached profile needs a lookup for each key."""
    stats = client.stats()
    kept = stats.entries or stats.negative_entries or client.health().closed
    return not (kept or client._observer.hooks or client._loader.rate_limited)


_SCALARS = frozenset({str, int, float, bool, type(None)})

_NOT_FOUND = Profile(status=Status.NEGATIVE, reason=Reason.NOT_FOUND)


def _without(error: SourceError) -> Profile:
    return Profile(status=Status.ERROR, reason=Reason.UNAVAILABLE, error=error)
