"""How often a key may ask: token buckets, and the header fields that say how much is left.

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

from ..._utils.token_bucket import TokenBucket
from ..._utils.validation import check_int
from ...errors import ConfigurationError

__all__ = ["PRESETS", "Quotas", "Rate", "Taken"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,9})/([smhd])")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds: the size of a bucket, and how fast it fills again.

    Args:
        requests: at once, and within `seconds` on average; at least 1.
        seconds: of the window, at least 1.
        shared: one bucket for all keys of a workspace, instead of one each.

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
        """A rate as people write it: `100/s`, `700/m`, `5000/h`, `100000/d`, or the name of a preset.

        Raises:
            ConfigurationError: it is written otherwise.
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
    """What a request took of a bucket.

    Attributes:
        granted: whether there was enough.
        headers: `RateLimit-Policy`, `RateLimit`; `Retry-After` when there was not.
    """

    granted: bool
    headers: tuple[tuple[bytes, bytes], ...]


class _Bucket:
    __slots__ = ("policy", "rate", "tokens")

    def __init__(self, rate: Rate, size: float, now: float) -> None:
        self.rate = rate
        self.tokens = TokenBucket(size / rate.seconds, size, now)
        name = "workspace" if rate.shared else "key"
        self.policy = f'"{name}";q={math.floor(size)};w={rate.seconds}'.encode()


class Quotas:
    """The buckets of one process.

    Each worker process has its own, and grants an equal share of each rate: `requests / workers`, at least 1. They do
    not tell each other what they granted. So the sum keeps the rate, and a client whose connections all went to one
    worker gets that worker's share.

    Args:
        default: the rate of keys that have none of their own; `None` for no limit.
        workers: how many processes serve together.
        timer: the monotonic clock, in seconds; injectable for tests.
    """

    def __init__(
        self, default: Rate | None = None, *, workers: int = 1, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._default = default
        self._workers = check_int("workers", workers)
        self._timer = timer
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def take(self, key_id: str, workspace: str, rate: Rate | None, cost: int = 1) -> Taken | None:
        """Takes from the bucket of a key; `None` when it has no limit.

        Args:
            key_id: whose bucket.
            workspace: whose, when the rate is shared.
            rate: the key's own rate.
            cost: how many requests this one counts as; never more than the bucket holds.
        """
        rate = rate or self._default
        if rate is None:
            return None
        place = ("workspace", workspace) if rate.shared else ("key", key_id)
        now = self._timer()
        size = max(1.0, rate.requests / self._workers)
        bucket = self._buckets.get(place)
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[place] = _Bucket(rate, size, now)
        tokens = bucket.tokens
        pause = tokens.take(now, min(float(cost), math.floor(size)))
        full_in = math.ceil((size - tokens.level) / tokens.rate)
        left = math.floor(tokens.level + 0.001)
        name = bucket.policy.partition(b";")[0]
        headers = (
            (b"ratelimit-policy", bucket.policy),
            (b"ratelimit", b"%b;r=%d;t=%d" % (name, left, full_in)),
        )
        if not pause:
            return Taken(True, headers)
        wait = max(1, math.ceil(pause))
        return Taken(False, (*headers, (b"retry-after", b"%d" % wait)))
