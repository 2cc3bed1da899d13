"""Resolution of a collection's name to its id: a Census entity or an Amperity index."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from .._utils.deadline import Deadline
from ..errors import ConfigurationError
from .shared_call import SharedCall

__all__ = ["CONFIRM_SECONDS", "NamedCollection"]

CONFIRM_SECONDS = 300.0
"""How long a collection counts as existing after it was last seen, in seconds."""

_SHOWN = 20


class NamedCollection:
    """A collection, given by id or by name. A name is resolved once through the vendor's list and cached.

    Args:
        kind: the vendor's word for it, for messages.
        given: the id or name that was passed.
        listing: a function that fetches `(id, name)` of all collections.
        is_id: whether `given` is certainly an id; otherwise it is matched against names first, then ids.
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
        """Return the id. The list is fetched only if a name is not resolved yet.

        Raises:
            ConfigurationError: no collection, or more than one, has the name.
            SourceError: the list could not be fetched.
        """
        return self._id if self._id is not None else await self._resolution.result(deadline)

    async def resolve(self, deadline: Deadline) -> str:
        """Return the id, and check that the collection is in the list unless it was seen recently.

        Raises:
            ConfigurationError: no collection, or more than one, has the name.
            SourceError: the list could not be fetched.
        """
        if self._id is not None and self._seen_lately():
            return self._id
        return await self._resolution.result(deadline)

    def seen(self, id: str) -> None:
        """Record that the collection exists, since one of its records was read."""
        if id == self._id:
            self._confirmed = time.monotonic()

    async def confirm(self, asked: str, deadline: Deadline) -> str | None:
        """Confirm that the collection exists, before one of its records counts as missing.

        The list is fetched unless the collection was seen recently, in the list or by reading one of its records.

        Args:
            asked: the id of the collection that did not have the record.
            deadline: the deadline for the call.

        Returns:
            `None` if the record is missing; otherwise the id of the collection that has the name now: look there again.

        Raises:
            ConfigurationError: the collection is not in the list.
            SourceError: the list could not be fetched, so the record may or may not exist.
        """
        found = await self.resolve(deadline)
        return None if found == asked else found

    def _seen_lately(self) -> bool:
        return self._confirmed is not None and time.monotonic() - self._confirmed < CONFIRM_SECONDS

    async def _resolve(self, deadline: Deadline) -> str:
        listed = list(dict.fromkeys(await self._listing(deadline)))  # a page may repeat what the one before had
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
        """Cancel a resolution in progress on the running loop."""
        await self._resolution.aclose()

    def __repr__(self) -> str:
        return f"{self._kind} {self._given!r}"
