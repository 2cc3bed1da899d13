"""Lookup of blocks of keys, for sources that return many profiles per call."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, cast

from ..._utils.freeze import freeze
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
    """Read the profiles of many keys with one call to a local source.

    For a source on this machine, a load per key would cost far more than the read, and limits, retries and sharing are
    not needed. Each key counts as one call to the source. Use `BlockLookup.of` to make one.
    """

    block = 1024
    """The number of records to look up together."""

    remembered = 65_536
    """The number of keys whose results are kept: reading them again is cheap."""

    def __init__(self, client: ProfileClient, read: _Read) -> None:
        self._client = client
        self._read = read

    @classmethod
    def of(cls, client: ProfileClient) -> BlockLookup | None:
        """Return the block lookup of a client.

        Returns:
            `None` if keys must be looked up singly: the source is not local, there are hooks or a rate limit, or the
            client was used before or is closed.
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
        """Return the attributes of each id; or an empty profile with the reason.

        Args:
            ids: different primary ids.
        """
        observer = self._client._observer
        observer.source_calls += len(ids)
        answers: dict[str, Attributes | Profile] = {}
        try:
            answers.update(self._read(ids))
        except SourceError:
            for each in ids:  # one record is invalid; the others can be read
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
        """Return a profile for each key, as `lookup_many` does; `None` if one is not a primary id."""
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
    """Read the profiles of many keys in batches, for a source with a batch endpoint.

    A successful call needs no load per key. A failed one is repeated by `ProfileClient.lookup_many`, which retries and
    waits for the circuit breaker.

    Args:
        client: the client.
        source: the same.
        options: `window`, `concurrency` and `retry_timeout` apply.
    """

    remembered = 1_000_000
    """The number of keys whose results are kept: a call costs more than the memory."""

    def __init__(self, client: ProfileClient, source: BatchSource, options: EnrichOptions) -> None:
        self.block = max(source.batch_size, options.window // 2)  # load one block while another is written
        self._client = client
        self._source = source
        self._options = options
        self._slots = asyncio.Semaphore(options.concurrency)

    async def read(self, ids: Sequence[str]) -> Answers:
        """Return the attributes of each id; or an empty profile with the reason.

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
        """Return the results of one call; empty if it failed, or cannot be made now."""
        answers: Answers = {}
        keys = [ProfileKey(id) for id in ids]
        async with self._slots:
            try:
                found = await self._client._loader.calls.ask_together(keys)
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
    """Return the block lookup of a client; `None` if its keys must be looked up singly."""
    local = BlockLookup.of(client)
    source = client.source
    if local is None and isinstance(source, BatchSource) and source.batch_size > 1:
        return BatchLookup(client, source, options) if _unobserved(client) and client._shared is None else None
    return local


def _unobserved(client: ProfileClient) -> bool:
    """Return whether no hook, rate limit or cached profile requires a lookup per key."""
    stats = client.stats()
    kept = stats.entries or stats.negative_entries or client.health().closed
    return not (kept or client._observer.hooks or client._loader.calls.rate_limited)


_SCALARS = frozenset({str, int, float, bool, type(None)})

_NOT_FOUND = Profile(status=Status.NEGATIVE, reason=Reason.NOT_FOUND)


def _without(error: SourceError) -> Profile:
    return Profile(status=Status.ERROR, reason=Reason.UNAVAILABLE, error=error)
