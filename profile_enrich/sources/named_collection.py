"""The named collection that a source asks: Census's entity, Amperity's index."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from .._utils.deadline import Deadline
from ..errors import ConfigurationError, SourceError
from .shared_call import SharedCall

__all__ = ["CONFIRM_SECONDS", "NamedCollection"]

CONFIRM_SECONDS = 300.0
"""How long a collection that was seen in the list is trusted to be there."""

_SHOWN = 20


class NamedCollection:
    """An id, or a name that is resolved through the vendor's list once and remembered.

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
        """The id; asks for the list only when a name was not resolved yet.

        Raises:
            ConfigurationError: no collection, or more than one, has the name.
            SourceError: the list could not be fetched.
        """
        return self._id if self._id is not None else await self._resolution.result(deadline)

    async def confirm(self, asked: str, deadline: Deadline) -> str | None:
        """After a 404: is it the record that is missing, or the collection?

        The list is fetched, unless the collection was seen in it a short time ago. When it cannot be fetched, the
        record counts as missing, which is far more often true, and the next 404 tries again.

        Args:
            asked: the id that gave the 404.
            deadline: by when.

        Returns:
            `None`: the record is missing. An id: the name stands for this other collection now; ask again there.

        Raises:
            ConfigurationError: the collection is not in the list.
        """
        now = time.monotonic()
        if self._confirmed is not None and now - self._confirmed < CONFIRM_SECONDS:
            return None if self._id == asked else self._id
        try:
            found = await self._resolution.result(deadline)
        except SourceError:
            return None
        return None if found == asked else found

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
        """Ends a resolution that is under way on the running loop."""
        await self._resolution.aclose()

    def __repr__(self) -> str:
        return f"{self._kind} {self._given!r}"
