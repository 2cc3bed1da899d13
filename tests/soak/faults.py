"""Schedules of vendor faults: healthy, unreliable, failing or down."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from profile_enrich.testing import Exchange, Fault, VendorServer, faults

from .checker import Checker
from .settings import Settings

__all__ = ["DECK", "FaultSchedule"]


def _late(rng: random.Random) -> float:
    return min(rng.lognormvariate(-2.5, 1.2), 3.0)


DECK: dict[str, Fault] = {
    "latency": faults.Latency(_late),
    "latency, then 500": faults.Latency(0.03, faults.ServerError()),
    "hang": faults.Hang(),
    "reset before headers": faults.Reset("before_headers"),
    "reset in headers": faults.Reset("in_headers"),
    "reset in body": faults.Reset("in_body"),
    "truncated": faults.Truncated(),
    "truncated by a byte": faults.Truncated(1.0),
    "slow drip, body": faults.SlowDrip(0.02, 16),
    "slow drip, headers": faults.SlowDrip(0.02, 16, "headers"),
    "slow drip, both": faults.SlowDrip(0.05, 8, "both"),
    "status 418": faults.Respond(418, {"error": "teapot"}),
    "status 204": faults.Respond(204),
    "empty 200": faults.Respond(200),
    "garbage": faults.Garbage(),
    "wrong type": faults.WrongType(),
    "wrong type inside": faults.WrongType({"data": ["not", "an", "object"]}),
    "50 MB": faults.BigBody(),
    "50 MB, chunked": faults.BigBody(declared=False),
    "gzip bomb": faults.GzipBomb(),
    "redirect": faults.Redirect(),
    "redirect 307": faults.Redirect(status=307),
    "401": faults.Unauthorized(),
    "429": faults.RateLimited(),
    "429, Retry-After": faults.RateLimited(1),
    "500": faults.ServerError(),
    "503": faults.Unavailable(),
    "503, Retry-After": faults.Unavailable(1),
    "content-length too large": faults.WrongContentLength(10),
    "content-length too small": faults.WrongContentLength(-3),
    "content-length nonsense": faults.WrongContentLength("many"),
}


POLICIES = (None, None, "max-age=1", "max-age=2, private", "no-store", "max-age=0, no-cache")
"""What the vendor says about keeping its answers."""


@dataclass(frozen=True)
class _Chaos(Fault):
    """Applies the faults of the schedule."""

    deal: Callable[[], Fault]

    async def play(self, exchange: Exchange) -> None:
        await self.deal().play(exchange)


class FaultSchedule:
    """Changes the vendor's state every second or two, from a thread of its own; restarts it now and then.

    Faults are drawn without replacement: each is used once before any is repeated.
    """

    KINDS = ("fair", "rough", "foul", "storm", "down")
    WEIGHTS = (45, 25, 6, 14, 10)

    def __init__(self, vendor: VendorServer, settings: Settings, checker: Checker) -> None:
        self._vendor = vendor
        self._pace = settings.pace
        self._checker = checker
        self._rng = random.Random(settings.seed + 1)
        self._dealer = random.Random(settings.seed + 2)  # used by the vendor's thread alone
        self._hand: list[str] = []
        self._share = 0.0
        self._storm: str | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        vendor.always(_Chaos(self._deal))

    def start(self) -> None:
        self._over.clear()
        self._thread = threading.Thread(target=self._run, name="soak fault_schedule", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the schedule in its current state, with the vendor running."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def clear_up(self) -> None:
        """Remove all faults until the schedule continues."""
        self._share, self._storm = 0.0, None
        self._vendor.release()

    def _deal(self) -> Fault:
        self._checker.count("upstream")
        if self._dealer.random() >= self._share:
            return faults.Healthy()
        name = self._storm
        if name is None:
            if not self._hand:
                self._hand = list(DECK)
                self._dealer.shuffle(self._hand)
            name = self._hand.pop()
            if name.endswith("Retry-After") and self._dealer.random() < 0.8:
                return faults.Healthy()  # each one blocks all visitors for a second
        self._checker.count(f"fault: {name}")
        return DECK[name]

    def _run(self) -> None:
        while not self._over.is_set():
            kind = self._rng.choices(self.KINDS, self.WEIGHTS)[0]
            self._checker.count(f"fault_schedule: {kind}")
            self._share = {"fair": 0.03, "rough": 0.2, "foul": 0.9, "storm": 1.0, "down": 0.0}[kind]
            self._storm = self._rng.choice(list(DECK)) if kind == "storm" else None
            policy = self._rng.choice(POLICIES)
            self._vendor.headers = {} if policy is None else {"cache-control": policy}
            if kind == "down":
                self._restart()
            self._over.wait(self._pace * self._rng.uniform(0.3, 2.0))
            if self._rng.random() < 0.5:
                self._vendor.release()
            if self._rng.random() < 0.2:
                self._vendor.expire_tokens()

    def _restart(self) -> None:
        self._vendor.close()
        self._over.wait(self._pace * self._rng.uniform(0.1, 1.5))
        retry_timeout = time.monotonic() + 30
        while True:
            try:
                self._vendor.start()
            except OSError:
                # A connection attempt to the closed port can get this port as its own, and hold it for a moment.
                if time.monotonic() > retry_timeout:
                    self._checker.check(False, "the soak itself: the vendor's port was taken while it was down")
                    self._over.set()
                    return
                time.sleep(0.05)
            else:
                return
