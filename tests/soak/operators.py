"""Other concurrent users of the client: operators, synchronous threads, and short-lived event loops."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable

from profile_enrich import BlockingProfileClient, Profile, ProfileClient, ProfileEnrichError
from profile_enrich.web.invalidation import sign

from .checker import Checker
from .entrypoints import Entrypoint
from .expected_state import Expectation, ExpectedState, Sight
from .shop import HOOK_SECRET
from .watch import WatchedSource

__all__ = ["BACK_OFFICE", "Operator", "Operators"]

BACK_OFFICE = 3
"""Synchronous threads."""


class _Answers:
    """Look a profile up, and check it."""

    def __init__(self, expected: ExpectedState, checker: Checker, rng: random.Random) -> None:
        self._expected = expected
        self._checker = checker
        self._rng = rng

    def expect(self) -> Expectation:
        return self._expected.expect(self._expected.somebody(self._rng))

    def saw(self, profile: Profile | None, expected: Expectation, where: str) -> None:
        self._checker.count(f"elsewhere: {where}")
        if profile is not None:
            self._expected.judge(Sight.of(profile), expected, where)

    def refused(self, error: Exception, where: str) -> None:
        """An error is a valid result, unless its message identifies a person."""
        expected = isinstance(error, ProfileEnrichError)
        self._checker.check(expected, "an error of another family", f"{where}: {type(error).__name__}")
        text = f"{error!r} {error} {error.__cause__!r} {error.__context__!r}"
        self._checker.check(not self._expected.planted(text), "A18: personal data in an error", where)
        self._checker.count(f"elsewhere: {where}, {getattr(error, 'code', 'error')}")


class Operator:
    """Changes profiles at the vendor, invalidates, refreshes, clears, and reads in bulk."""

    def __init__(
        self,
        client: ProfileClient,
        entrypoint: Entrypoint,
        expected: ExpectedState,
        checker: Checker,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._entrypoint = entrypoint
        self._expected = expected
        self._checker = checker
        self._rng = rng
        self._judge = _Answers(expected, checker, rng)
        self._calls = 0

    async def work(self, until: float) -> None:
        """Do one thing after the other until the given monotonic time."""
        rng, expected = self._rng, self._expected
        duties = (
            (30, self._invalidate), (10, self._call_hook), (5, self._invalidate_tag), (0.3, self._clear),
            (15, self._refresh), (6, self._read_many), (8, self._peek), (20, self._rest),
        )  # fmt: skip
        while time.monotonic() < until:
            await asyncio.sleep(rng.expovariate(1 / 0.03))
            for _ in range(rng.randrange(4)):
                expected.change(expected.people[int(len(expected.people) * rng.random() ** 3)])
            duty = rng.choices([duty for _, duty in duties], [weight for weight, _ in duties])[0]
            self._checker.count(f"operator: {duty.__name__.lstrip('_')}")
            await duty()

    def _some(self, most: int) -> list[str]:
        return sorted({self._expected.somebody(self._rng) for _ in range(self._rng.randrange(1, most))})

    async def _rest(self) -> None:
        return None

    async def _invalidate(self) -> None:
        self._expected.invalidate(self._client, self._some(4))

    async def _invalidate_tag(self) -> None:
        self._expected.invalidate(self._client, tag=f"group-{2 * self._rng.randrange(10) + 1}")

    async def _clear(self) -> None:
        self._expected.clear(self._client)

    async def _call_hook(self) -> None:
        keys = self._some(6)
        self._calls += 1
        # The same body within the same second would be a repetition.
        body = json.dumps({"keys": keys, "tags": [f"call-{self._calls}"]}).encode()
        headers = {"content-type": "application/json", "x-attach": "eager"}
        headers |= {name.lower(): value for name, value in sign(HOOK_SECRET, body).items()}
        with self._expected.invalidating(keys):
            reply = await self._entrypoint.ask("POST", "/hook", headers, body)
        self._checker.check(reply is not None and reply.status == 200, "a signed call was refused")

    async def _refresh(self) -> None:
        expected = self._judge.expect()
        try:
            profile = await self._client.refresh(expected.key, budget=self._rng.choice((None, 0.05)))
        except Exception as error:
            self._judge.refused(error, "refresh")
        else:
            self._judge.saw(profile, expected, "refresh")

    async def _read_many(self) -> None:
        expected = {key: self._expected.expect(key) for key in self._some(40)}
        for key, profile in (await self._client.get_many(expected, budget=0.2, concurrency=8)).items():
            self._judge.saw(profile, expected[str(key)], "get_many")

    async def _peek(self) -> None:
        expected = self._judge.expect()
        self._judge.saw(self._client.peek(expected.key), expected, "peek")


class Operators:
    """Threads: some use the blocking client, one runs event loops that end during loads."""

    def __init__(
        self,
        client: ProfileClient,
        source: WatchedSource,
        expected: ExpectedState,
        checker: Checker,
        rng: random.Random,
    ) -> None:
        self.blocking: BlockingProfileClient = client.blocking()
        self._client = client
        self._source = source
        self._expected = expected
        self._checker = checker
        self._until = 0.0
        jobs: list[Callable[[random.Random], None]] = [*[self._office] * BACK_OFFICE, self._short_loops]
        self._threads = [
            threading.Thread(target=self._run, args=(job, random.Random(rng.random())), name=f"soak {job.__name__}")
            for job in jobs
        ]

    def start(self, until: float) -> None:
        """Work until the given monotonic time."""
        self._until = until
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self, job: Callable[[random.Random], None], rng: random.Random) -> None:
        try:
            while time.monotonic() < self._until:
                job(rng)
        except Exception as error:
            self._checker.check(False, "a thread that uses the client failed", f"{job.__name__}: {error!r}")

    def _office(self, rng: random.Random) -> None:
        time.sleep(rng.expovariate(1 / 0.03))
        judge = _Answers(self._expected, self._checker, rng)
        expected = judge.expect()
        budget = rng.choice((None, 0.0, 0.05, 0.3))
        way = rng.choice(("get", "lookup", "lookup", "refresh", "get_many"))
        where = f"blocking {way}"
        try:
            if way == "get_many":
                profile = self.blocking.get_many([expected.key], budget=budget)[expected.key]
            else:
                profile = getattr(self.blocking, way)(expected.key, budget=budget)
        except Exception as error:
            judge.refused(error, where)
        else:
            judge.saw(profile, expected, where)

    def _short_loops(self, rng: random.Random) -> None:
        """Like a test client: run a loop for some requests, and end it during running loads."""
        asyncio.run(self._short_visit(rng))
        time.sleep(rng.expovariate(1 / 0.1))

    async def _short_visit(self, rng: random.Random) -> None:
        self._source.mortal.add(asyncio.get_running_loop())
        judge = _Answers(self._expected, self._checker, rng)

        async def look() -> None:
            expected = judge.expect()
            try:
                profile = await self._client.get(expected.key, budget=rng.choice((0.01, 0.05, None)))
            except Exception as error:
                judge.refused(error, "short loop")
            else:
                judge.saw(profile, expected, "short loop")

        await asyncio.wait([asyncio.ensure_future(look()) for _ in range(10)], timeout=rng.uniform(0.0, 0.3))
