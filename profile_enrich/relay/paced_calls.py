"""Call a vendor for one record after another: evenly spaced, each call repeated when it fails."""

from __future__ import annotations

import asyncio

from .._utils.deadline import Deadline
from .._utils.validation import check_number
from ..errors import InvalidKeyError, SourceAuthError, SourceError, SourceRequestError
from ..profile import ProfileKey
from ..sources.base import NotFound, ProfileSource, SourceResult

__all__ = ["Calls"]

_ATTEMPTS = 3
_PAUSE = 0.2


class Calls:
    """The calls of one run.

    Args:
        source: the vendor's.
        rate: calls a second at most; `None`: no limit.
        timeout: seconds for one call.
    """

    def __init__(self, source: ProfileSource, *, rate: float | None, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._every = 0.0 if rate is None else 1 / check_number("rate", rate, unit="calls a second", positive=True)
        self._next = 0.0

    async def fetch(self, record_id: str) -> SourceResult | None:
        """Return the vendor's answer; `None` if it failed three times.

        Raises:
            SourceAuthError: the vendor rejects the key, so every record would fail.
            SourceRequestError: it rejects the request, e.g. because it has no such entity.
        """
        try:
            key = ProfileKey(record_id)
        except InvalidKeyError:
            return NotFound()  # no record has such an id
        for attempt in range(_ATTEMPTS):
            await self._turn()
            try:
                return await self._source.fetch(key, deadline=Deadline(self._timeout))
            except (SourceAuthError, SourceRequestError):
                raise
            except SourceError as failure:
                wait = getattr(failure, "retry_after", None) or _PAUSE * 2**attempt
            if attempt + 1 < _ATTEMPTS:
                await asyncio.sleep(min(float(wait), self._timeout))
        return None

    async def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        turn = max(self._next, now)
        self._next = turn + self._every
        await asyncio.sleep(turn - now)
