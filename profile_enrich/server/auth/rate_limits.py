"""Rate limits of API keys: token buckets, and the headers that report the remaining quota.

`RateLimit-Policy` and `RateLimit` are those of the IETF's draft "RateLimit header fields for HTTP"
(draft-ietf-httpapi-ratelimit-headers-11), `Retry-After` is RFC 9110's.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..._utils.validation import check_int
from ...errors import ConfigurationError
from ..cross_worker_state import BucketTable

__all__ = ["PRESETS", "Quotas", "Rate", "Taken"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,9})/([smhd])")


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit: the size of a token bucket and the seconds in which it refills.

    Args:
        requests: the number of requests per window, and the largest burst; at least 1.
        seconds: the length of the window, at least 1.
        shared: whether all keys of a workspace share one bucket.

    Raises:
        ConfigurationError: a number is out of range.
    """

    requests: int
    seconds: int = 1
    shared: bool = False

    def __post_init__(self) -> None:
        check_int("requests", self.requests)
        check_int("seconds", self.seconds)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse a rate: `100/s`, `700/m`, `5000/h`, `100000/d`, or the name of a preset.

        Raises:
            ConfigurationError: it has another form.
        """
        if text in PRESETS:
            return PRESETS[text]
        found = _RATE.fullmatch(text)
        if found is None:
            names = ", ".join(PRESETS)
            raise ConfigurationError(f"a rate is written 100/s, 700/m, 5000/h or 100000/d, or is one of: {names}")
        return cls(int(found[1]), _UNITS[found[2]])

    def __str__(self) -> str:
        for name, preset in PRESETS.items():
            if preset == self:
                return name
        for unit, seconds in _UNITS.items():
            if seconds == self.seconds:
                return f"{self.requests}/{unit}"
        return f"{self.requests}/{self.seconds}s"


PRESETS: dict[str, Rate] = {}
PRESETS.update(
    amperity=Rate(2000, 1, shared=True),
    segment=Rate(100, 1, shared=True),
    mparticle=Rate(15, 1, shared=True),
)
"""The limits that vendors document, to try a client against: a tenant's or a space's, so all keys share them. Census
documents none for its Profile API."""


class Taken(NamedTuple):
    """The result of taking from a bucket.

    Attributes:
        granted: whether the request is allowed.
        headers: `RateLimit-Policy`, `RateLimit`, and `Retry-After` if it is not allowed.
    """

    granted: bool
    headers: tuple[tuple[bytes, bytes], ...]


class Quotas:
    """Apply the keys' rate limits.

    Args:
        default: the rate of keys without their own; `None` for no limit.
        buckets: the token buckets, which may be shared by the workers.
        timer: the monotonic clock, in seconds; injectable for tests.
    """

    def __init__(
        self,
        default: Rate | None = None,
        *,
        buckets: BucketTable | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default = default
        self._buckets = buckets or BucketTable()
        self._timer = timer

    def rate_of(self, rate: Rate | None) -> Rate | None:
        """Return the rate that applies to a key: its own, or the default."""
        return rate or self._default

    def take(self, key_id: str, workspace: str, rate: Rate | None, cost: int = 1) -> Taken | None:
        """Take from the bucket of a key; return `None` if it has no limit.

        Args:
            key_id: the id of the key.
            workspace: the workspace, for a shared rate.
            rate: the key's own rate.
            cost: the number of requests that this one counts as. A cost above the bucket's size is never allowed.
        """
        rate = rate or self._default
        if rate is None:
            return None
        scope = "workspace" if rate.shared else "key"
        size, seconds = rate.requests, rate.seconds
        granted, level = self._buckets.take(
            f"{scope}:{workspace if rate.shared else key_id}", cost, size=size, seconds=seconds, now=self._timer()
        )
        full_in = math.ceil((size - level) * seconds / size - 1e-6)
        headers = (
            (b"ratelimit-policy", f'"{scope}";q={size};w={seconds}'.encode()),
            (b"ratelimit", f'"{scope}";r={math.floor(level + 0.001)};t={full_in}'.encode()),
        )
        if granted:
            return Taken(True, headers)
        wait = max(1, math.ceil((min(cost, size) - level) * seconds / size))
        return Taken(False, (*headers, (b"retry-after", b"%d" % wait)))
