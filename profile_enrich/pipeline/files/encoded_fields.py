"""What the keys of a file add to its records, looked up a block of records at a time."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InvalidKeyError
from ...profile import Profile, ProfileKey
from ..keys import key_of
from ..records.block_lookup import BlockLookup
from ..records.outcome import Outcome
from .line_writer import AddedFields, Attributes
from .readers import Item

__all__ = ["ReadyFields"]

_REMEMBERED = 65_536
"""Keys whose fields are kept: memory must not grow with the file."""


class ReadyFields:
    """The added fields of keys, each key looked up once while it is remembered.

    Args:
        lookup: reads the profiles.
        attributes: makes fields of them.
    """

    def __init__(self, lookup: BlockLookup, attributes: Attributes) -> None:
        self._lookup = lookup
        self._attributes = attributes
        self._ready: dict[str, AddedFields] = {}
        self._without: dict[str, Profile | InvalidKeyError] = {}

    def prepare(self, block: Sequence[Item]) -> None:
        """Look up the keys of these records that are not known yet."""
        ready, without = self._ready, self._without
        if len(ready) + len(without) > _REMEMBERED:
            ready.clear()
            without.clear()
        asked: dict[str, None] = {}
        for item in block:
            key = item.key
            if type(key) is not str:
                if type(key) is not int:
                    continue  # looked at record by record: nothing to look up, most often
                key = item.key = str(key)
            if key not in ready and key not in without and key and item.fault is None:
                asked[key] = None
        ids: list[str] = []
        for key in asked:
            try:
                ids.append(ProfileKey(key).value)
            except InvalidKeyError as error:
                without[key] = error.with_traceback(None)
        if ids:
            self._add(ids)

    def _add(self, ids: list[str]) -> None:
        for key, answer in self._lookup.attributes(ids).items():
            if isinstance(answer, Profile):
                self._without[key] = answer
                continue
            added = self._attributes.of_attributes(answer)
            self._ready[key] = added

    def fields(self, item: Item) -> AddedFields | None:
        """Return what is added to a record; `None` when it has no profile, or cannot be written as it is."""
        key = item.key
        if item.fault is not None or type(key) is not str:
            return None
        added = self._ready.get(key)
        return added if added is not None and added.fault is None else None

    def outcome(self, item: Item) -> Outcome[Item]:
        """Return the outcome of a record for which `fields` has nothing."""
        outcome = Outcome(item.number - 1, item)
        try:
            key = key_of(item.key)
        except InvalidKeyError as error:
            outcome.problem = error.with_traceback(None)
            return outcome
        text = key.value if isinstance(key, ProfileKey) else key
        if text not in self._ready and text not in self._without:
            self._add([text])
        answer = self._without.get(text)
        if isinstance(answer, InvalidKeyError):
            outcome.problem = answer
        elif answer is not None and answer.error is not None:
            outcome.problem = answer.error
        else:
            outcome.profile = answer if answer is not None else self._profile(text)
        return outcome

    def _profile(self, text: str) -> Profile | None:
        return (self._lookup.profiles([ProfileKey(text)]) or {}).get(ProfileKey(text))
