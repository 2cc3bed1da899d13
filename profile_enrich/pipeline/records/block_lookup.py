"""Look keys up a block at a time, where the source answers from this machine without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from ..._utils.frozen import freeze
from ...client.client import ProfileClient
from ...errors import SourceError, SourceResponseError
from ...profile import Profile, ProfileKey, Reason, Record, Status
from ...sources.base import LocalSource

__all__ = ["BlockLookup"]

Attributes = Mapping[str, object]
_Read = Callable[[Sequence[str]], Mapping[str, Attributes]]


class BlockLookup:
    """Reads the profiles of many keys with one call of a local source.

    A load per key costs far more than the read itself, and what it is for (limits, retries, sharing) is of no use with
    a source on this machine. Each key counts as one call of the source. Made by `BlockLookup.of`.
    """

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
        if not isinstance(source, LocalSource) or client._observer.hooks or client._loader.rate_limited:
            return None
        stats = client.stats()
        if stats.entries or stats.negative_entries or client.health().closed:
            return None
        read = source.local_reader()
        return None if read is None else cls(client, read)

    def attributes(self, ids: Sequence[str]) -> dict[str, Attributes | Profile]:
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


_SCALARS = frozenset({str, int, float, bool, type(None)})

_NOT_FOUND = Profile(status=Status.NEGATIVE, reason=Reason.NOT_FOUND)


def _without(error: SourceError) -> Profile:
    return Profile(status=Status.ERROR, reason=Reason.UNAVAILABLE, error=error)
