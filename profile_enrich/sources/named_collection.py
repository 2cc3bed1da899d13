"""The named collection that a source asks: an entity of Census, an index of Amperity."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from .._utils.deadline import Deadline
from ..errors import ConfigurationError
from .shared_call import SharedCall

__all__ = ["CONFIRM_SECONDS", "NamedCollection"]

CONFIRM_SECONDS = 300.0
"""How long a collection that was seen is trusted to exist."""

_SHOWN = 20


class NamedCollection:
    """A collection given by id, or by a name that is resolved once through the vendor's list and remembered.

    Args:
        kind: what the vendor calls it, for messages.
        given: the id or the name.
        listing: fetches `(id, name)` of all collections.
        is_id: whether `given` is an id for certain; otherwise names go first, and then ids.
    """

    def __init__(
        self,
        kind: str,
        given: str,
        listing: Callable[[Deadline], Coroutine[Any, Any, list[tuple[str, str]]]],
        *,
        is_id: bool,
    ) -> None:
        self._kind = kind
        self._given = given
        self._is_id = is_id
        self._id = given if is_id else None
        self._confirmed: float | None = None
        self._resolution = SharedCall(self._resolve)
        self._listing = listing

    async def id(self, deadline: Deadline) -> str:
        """Return the id; the list is fetched only when a name was not resolved yet.

        Raises:
            ConfigurationError: no collection, or more than one, has the name.
            SourceError: the list could not be fetched.
        """
        return self._id if self._id is not None else await self._resolution.result(deadline)

    async def resolve(self, deadline: Deadline) -> str:
        """Return the id, and look the collection up in the list unless it was seen lately.

        Raises:
            ConfigurationError: no collection, or more than one, has the name.
            SourceError: the list could not be fetched.
        """
        if self._id is not None and self._seen_lately():
            return self._id
        return await self._resolution.result(deadline)

    def seen(self, id: str) -> None:
        """Note that a record was read from the collection: it exists."""
        if id == self._id:
            self._confirmed = time.monotonic()

    async def confirm(self, asked: str, deadline: Deadline) -> str | None:
        """Make sure that the collection exists, before a record of it counts as missing.

        The list is fetched, unless the collection was seen a short time ago: in the list, or because a record was read
        from it.

        Args:
            asked: the id of the collection in which the record was not found.
            deadline: by when.

        Returns:
            `None`: the record is missing. An id: the name belongs to this other collection now; ask again there.

        Raises:
            ConfigurationError: the collection is not in the list.
            SourceError: the list could not be fetched, so that nothing is known about the record.
        """
        found = await self.resolve(deadline)
        return None if found == asked else found

    def _seen_lately(self) -> bool:
        return self._confirmed is not None and time.monotonic() - self._confirmed < CONFIRM_SECONDS

    async def _resolve(self, deadline: Deadline) -> str:
        listed = await self._listing(deadline)
        ids = [] if self._is_id else [id for id, name in listed if name == self._given]
        if not ids:
            ids = [id for id, _ in listed if id == self._given]
        if len(ids) != 1:
            if not self._is_id:
                self._id = None
            self._confirmed = None
            raise ConfigurationError(self._complaint(listed, ids))
        self._id, self._confirmed = ids[0], time.monotonic()
        return ids[0]

    def _complaint(self, listed: list[tuple[str, str]], ids: list[str]) -> str:
        what = f"{self._kind} {self._given!r}"
        if ids:
            return f"{what} is the name of several ({', '.join(ids)}); give the id of one of them"
        if not listed:
            return f"{what} does not exist: the key sees none at all; check the workspace or tenant of the key"
        known = ", ".join(f"{name!r} ({id})" for id, name in listed[:_SHOWN])
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        return f"{what} does not exist; the key sees {known}{more}"

    async def aclose(self) -> None:
        """Cancel a resolution that is under way on the running loop."""
        await self._resolution.aclose()

    def __repr__(self) -> str:
        return f"{self._kind} {self._given!r}"
