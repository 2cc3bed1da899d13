"""What several tests need: a source whose every step a test decides."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import logging
from collections.abc import Callable
from typing import Any

import pytest

from profile_enrich import CachePolicy, NotFound, ProfileKey, Record, SourcePolicy
from profile_enrich._utils.deadline import Deadline
from profile_enrich.client.client import ProfileClient
from profile_enrich.sources.base import Found, SourceResult, Validators

NOT_STRICT = (
    '{"user_id": "u1", "n": NaN}',
    '{"user_id": "u1", "n": Infinity}',
    '{"user_id": "u1", "n": {"m": [-Infinity]}}',
    '{"user_id": "u1", "n": 1e400}',
    '{"user_id": "u1", "n": [-1.5E999]}',
    '{"user_id": "u1", "n": 1, "n": 2}',
    '{"user_id": "u1", "user_id": "u2"}',
    '{"user_id": "u1", "n": [{"m": 1, "m": 1}]}',
)
"""Objects that Python's decoder takes, and other programs refuse or read in another way (RFC 8259, 4 and 6)."""

Answer = Callable[[ProfileKey], SourceResult]


def found(**attributes: object) -> Found:
    return Found(Record(attributes, source="scripted"))


class ScriptedSource:
    """A source with scripted results, returned when the test allows it."""

    def __init__(self, answer: Answer | None = None, *, delay: float = 0.0, namespace: str = "scripted") -> None:
        self.name = "scripted"
        self.namespace = namespace
        self.answer: Answer = answer or (lambda key: found(id=key.value))
        self.delay = delay
        self.gate: asyncio.Event | None = None
        self.calls: list[ProfileKey] = []
        self.validators: list[Validators | None] = []
        self.cancelled = 0
        self.closed = 0
        self.contexts: list[contextvars.Context] = []

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        self.calls.append(key)
        self.validators.append(validators)
        self.contexts.append(contextvars.copy_context())
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer(key)

    async def aclose(self) -> None:
        self.closed += 1


class Switch:
    """An answer that a test turns from good to failing and back."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.version = 1

    def __call__(self, key: ProfileKey) -> SourceResult:
        if self.error is not None:
            raise self.error
        return found(id=key.value, version=self.version)


def nobody(_: ProfileKey) -> SourceResult:
    return NotFound()


def client_of(source: Any, **settings: Any) -> ProfileClient:
    """A client without jitter, so that times are exact. It takes the fields of the policies, too."""
    return ProfileClient(source, **with_policies({"jitter": 0.0, **settings}))


def with_policies(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with those that are fields of a policy put into one."""
    made = dict(settings)
    for name, kind in (("cache_policy", CachePolicy), ("source_policy", SourcePolicy)):
        fields = {field.name: made.pop(field.name) for field in dataclasses.fields(kind) if field.name in made}
        if fields:
            made[name] = kind(**fields)
    return made


def own_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the package logged; other libraries' records depend on how the log is set up.

    That the event loop stood still is left out: it does, wherever the machine has too much to do.
    """
    return [
        record
        for record in caplog.records
        if record.name.startswith("profile_enrich") and record.module != "process_stall"
    ]


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Let the loop run until the condition holds; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


async def settle(rounds: int = 5) -> None:
    """Lets tasks that are ready run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def own_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of the running loop other than the test itself."""
    gc.collect()
    return asyncio.all_tasks() - {asyncio.current_task()}
