"""Visitors: they browse, buy, sign in and out, share devices, cancel requests, and check every page they get."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass

from .checker import Checker
from .entrypoints import Entrypoint, Reply
from .expected_state import ExpectedState, Sight
from .settings import Settings
from .shop import MODES

__all__ = ["Device", "Visitor"]

READING = ("/page", "/late", "/at-once", "/sync", "/ws", "/buy")
PATHS = ("/page", "/late", "/at-once", "/sync", "/ws", "/buy", "/unread", "/sign-in", "/sign-out")
WEIGHTS = (46, 10, 8, 6, 5, 6, 3, 11, 5)


@dataclass(frozen=True, slots=True)
class Session:
    """The cookie of a device, and the person it identifies."""

    cookie: str = ""
    key: str | None = None


class Device:
    """A browser. Several visitors may use it at the same time, each in a tab, and the last one to sign in is signed in
    for all of them."""

    def __init__(self) -> None:
        self.session = Session()


class Visitor:
    """One tab of a device."""

    def __init__(
        self,
        device: Device,
        entrypoint: Entrypoint,
        expected: ExpectedState,
        settings: Settings,
        checker: Checker,
        rng: random.Random,
    ) -> None:
        self._device = device
        self._entrypoint = entrypoint
        self._expected = expected
        self._settings = settings
        self._checker = checker
        self._rng = rng
        self._paths = [path for path in PATHS if entrypoint.takes_websockets or path != "/ws"]
        self._weights = [WEIGHTS[PATHS.index(path)] for path in self._paths]

    async def stay(self, until: float) -> None:
        """Make requests until the given monotonic time."""
        rng = self._rng
        await asyncio.sleep(rng.uniform(0.0, self._settings.think))
        try:
            if rng.random() < 0.7:
                await self.act("/sign-in")
            while (left := until - time.monotonic()) > 0:
                await self.act(rng.choices(self._paths, self._weights)[0])
                await asyncio.sleep(min(left, rng.expovariate(1 / self._settings.think)))
        finally:
            self._entrypoint.close()

    async def act(self, path: str) -> None:
        """One request."""
        rng, session = self._rng, self._device.session
        mode = rng.choice(MODES)
        headers: dict[str, str] = {"x-attach": mode}
        if session.cookie:
            headers["cookie"] = f"session={session.cookie}"
        becomes = session.key
        if path == "/sign-in":
            becomes = headers["x-person"] = self._expected.somebody(rng)
        elif path == "/sign-out":
            becomes = headers["x-visitor"] = self._expected.visitor()
        method = "POST" if path in ("/sign-in", "/sign-out", "/buy") else "GET"
        # As long as the budget, so that some leave during the wait for the profile.
        leaving = path in READING and rng.random() < 0.12
        leave_after = rng.uniform(0.0, 1.5 * self._settings.budget) if leaving else None
        expected = None if session.key is None else self._expected.expect(session.key)
        started = time.monotonic()
        reply = await self._entrypoint.ask(method, path, headers, leave_after=leave_after)
        if reply is None:
            return
        self._checker.took(time.monotonic() - started)
        where = f"{path} attached {mode}"
        self._check_page(reply, session, path, where)
        if reply.status != 200:
            return
        if path in READING:
            page = json.loads(reply.text)
            sight = Sight(page["attributes"], page["status"], page["reason"], page["age"], page["at"])
            self._checker.count(f"page status: {sight.status}")
            self._checker.check(
                page["waited"] <= self._settings.budget + self._settings.slack + 2 * self._checker.lag,
                "A11: a page waited for longer than its budget", f"{where}: {page['waited']:.3f} s",
            )  # fmt: skip
            if expected is not None:
                self._expected.judge(sight, expected, where)
            else:
                empty = not sight.attributes and sight.reason in ("anonymous", "not_looked_up")
                self._checker.check(empty, "isolation: nobody is signed in, and yet there is a profile", where)
        elif path in ("/sign-in", "/sign-out"):
            cookie = reply.headers.get("set-cookie", "").partition(";")[0].removeprefix("session=")
            self._device.session = Session(cookie, becomes)

    def _check_page(self, reply: Reply, session: Session, path: str, where: str) -> None:
        check = self._checker.check
        self._checker.count(f"response: {reply.status}")
        check(reply.status == 200, "A10: a page was not served", f"{where}: {reply.status}")
        self._expected.judge_text(f"{reply.text}\n{[value for _, value in reply.headers.items()]}", session.key, where)
        if path == "/ws":
            return
        policy, vary = reply.headers.get("cache-control", ""), reply.headers.get("vary", "")
        if path in READING:
            check("private" in policy and "cookie" in vary.lower(), "A13: a personal page may be shared", where)
        elif path == "/unread":
            check(not policy and not vary, "A13: a page that read nothing is marked", where)
