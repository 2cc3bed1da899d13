"""Pipelines compared with a plain model: random records, failures, inputs, consumers and endings."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich import (
    Found,
    InvalidKeyError,
    MissingKeyError,
    NotFound,
    ProfileKey,
    Record,
    RetryPolicy,
    SourceConnectionError,
    SourceRequestError,
)
from profile_enrich.pipeline import EnrichOptions, Outcome, outcomes
from profile_enrich.sources.base import SourceResult
from tests.pipeline.helpers import CountingBatches, CountingSource, as_stream, client_for

KEYS = ["a", "b", "c", "d", "e", "f", "g", "h", None, "", 7, 2.5]

TASKS = {"profile_enrich lookups", "profile_enrich reader"}
"""The tasks of a run, by their names."""

FATES = ["found", "missing", "once", "twice", "always", "refused"]
"""What becomes of a key: found; not there; found after one or two failures; failing for ever; refused."""


def expected(key: object, fates: dict[str, str]) -> object:
    """Return the expected result of a record: its profile's id, `None` if it is missing, or the class of its error."""
    if key is None or key == "":
        return MissingKeyError
    if isinstance(key, float):
        return InvalidKeyError
    fate = fates[str(key)]
    if fate in ("always", "refused"):
        return SourceConnectionError if fate == "always" else SourceRequestError
    return None if fate == "missing" else str(key)


def calls(fate: str) -> int:
    """How many calls the model makes for a key."""
    return {"once": 2, "twice": 3, "always": 3}.get(fate, 1)


def seen(outcome: Outcome[Any]) -> object:
    if outcome.problem is not None:
        assert outcome.profile is None
        return type(outcome.problem)
    assert outcome.profile is not None
    return outcome.profile.get("id")


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "keys": draw(st.lists(st.sampled_from(KEYS), max_size=60)),
        "fates": {str(key): draw(st.sampled_from(FATES)) for key in KEYS if key},
        "ordered": draw(st.booleans()),
        "window": draw(st.integers(1, 12)),
        "concurrency": draw(st.integers(1, 5)),
        "batch": draw(st.sampled_from([1, 1, 2, 5])),
        "turns": draw(st.integers(0, 4)),
        "stream": draw(st.sampled_from(["no", "busy", "slow"])),
        "idle": draw(st.sets(st.integers(0, 60), max_size=8)),
        "stop_after": draw(st.one_of(st.none(), st.integers(1, 30))),
        "cancel_after": draw(st.one_of(st.none(), st.integers(1, 60))),
    }


async def run_world(world: dict[str, Any]) -> None:
    fates: dict[str, str] = world["fates"]

    def behaviour(key: ProfileKey, call: int) -> SourceResult:
        fate = fates[key.value]
        if fate == "refused":
            raise SourceRequestError("the vendor refused the request", status=422)
        if fate == "always" or (fate == "once" and call == 1) or (fate == "twice" and call <= 2):
            raise SourceConnectionError("the connection broke")
        return NotFound() if fate == "missing" else Found(Record({"id": key.value}))

    batch: int = world["batch"]
    if batch > 1:  # a failing key fails its entire batch, so the model has no failures there
        fates = {key: fate if fate in ("found", "missing") else "found" for key, fate in fates.items()}
        source: CountingSource = CountingBatches(behaviour, turns=world["turns"], size=batch)
    else:
        source = CountingSource(behaviour, turns=world["turns"])
    rows = [{"key": key, "n": number} for number, key in enumerate(world["keys"])]
    read = 0

    def reading() -> Any:
        nonlocal read
        for row in rows:
            read += 1
            yield row

    given: Any = reading()
    if world["stream"] != "no":
        given = as_stream(given, None if world["stream"] == "busy" else 0.0)
    got: list[Outcome[Any]] = []
    async with client_for(source, retry=RetryPolicy(attempts=1)) as client:

        async def consume() -> None:
            async for outcome in outcomes(
                given,
                client=client,
                key="key",
                options=EnrichOptions(
                    ordered=world["ordered"], window=world["window"], concurrency=world["concurrency"]
                ),
            ):
                got.append(outcome)
                assert read - len(got) < world["window"]
                if len(got) in world["idle"]:
                    for _ in range(5):
                        await asyncio.sleep(0)
                if len(got) == world["stop_after"]:
                    break

        task = asyncio.create_task(consume())
        if world["cancel_after"] is not None:
            for _ in range(world["cancel_after"]):
                await asyncio.sleep(0)
            task.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([task])
        whole = not task.cancelled() and world["stop_after"] is None
        if not task.cancelled():
            task.result()
        async with asyncio.timeout(10):  # a run that its consumer left early ends by itself
            while {each.get_name() for each in asyncio.all_tasks()} & TASKS:
                await asyncio.sleep(0)

        positions = [outcome.position for outcome in got]
        assert len(set(positions)) == len(positions)
        if world["ordered"]:
            assert positions == list(range(len(positions)))
        for outcome in got:
            assert outcome.row is rows[outcome.position]
            wanted = expected(outcome.row["key"], fates)
            assert seen(outcome) == wanted
        if whole:
            assert len(got) == len(rows)
            asked = {str(key) for key in world["keys"] if key and not isinstance(key, float)}
            if all(fates[key] not in ("always", "refused") for key in asked):
                assert source.calls == Counter({key: calls(fates[key]) for key in asked})
        assert source.most_in_flight <= world["concurrency"]


@settings(max_examples=100, deadline=None)
@given(world=worlds())
def test_E1_E2_whatever_happens_each_record_has_one_outcome(world: dict[str, Any]) -> None:
    asyncio.run(run_world(world))
