"""Fixtures for the tests of all engines: records, and a vendor server that counts calls and fails on demand."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from profile_enrich.pipeline.workers import ClientConfig, close_worker_clients
from profile_enrich.testing import VendorServer

ROOT = Path(__file__).parent.parent.parent
KEY = "engine-test-key"
VARIABLE = "ENGINE_TEST_KEY"
UNKNOWN = "nobody-"


@dataclass
class Job:
    """Records to enrich, and the expected results."""

    records: list[dict[str, Any]]
    profiles: dict[str, dict[str, Any]] = field(repr=False)

    @property
    def keys(self) -> set[str]:
        """The distinct keys that can be looked up; a whole number counts as its decimal text."""
        return {str(r["user_id"]) for r in self.records if usable(r.get("user_id"))}


def usable(key: object) -> bool:
    return (isinstance(key, str) and key != "") or (isinstance(key, int) and not isinstance(key, bool))


def make_job(count: int = 5_000, people: int = 600, seed: int = 7) -> Job:
    """Records with keys that repeat (Zipf, s = 1), are null, missing, unknown to the vendor, or no text."""
    rng = random.Random(seed)
    weights = [1 / rank for rank in range(1, people + 1)]
    profiles = {
        str(n): {"id": str(n), "tier": ("gold", "none")[n % 2], "score": n / 8, "tags": ["a", n]} for n in range(people)
    }
    chosen = rng.choices(range(people), weights, k=count)
    records: list[dict[str, Any]] = []
    for position, person in enumerate(chosen):
        record: dict[str, Any] = {"position": position, "user_id": str(person), "amount": position / 4}
        kind = position % 50
        if kind == 7:
            record["user_id"] = None
        elif kind == 13:
            del record["user_id"]
        elif kind == 19:
            record["user_id"] = person  # a number
        elif kind == 23:
            record["user_id"] = f"{UNKNOWN}{person % 9}"
        elif kind == 29:
            record["user_id"] = ""
        elif kind == 31:
            record["user_id"] = 1.5
        records.append(record)
    return Job(records, profiles)


@pytest.fixture
def job() -> Job:
    """5,000 records."""
    return make_job()


@pytest.fixture
def vendor(job: Job, monkeypatch: pytest.MonkeyPatch) -> Iterator[VendorServer]:
    """A Census server that counts calls and fails on demand; workers read its key from their environment."""
    monkeypatch.setenv(VARIABLE, KEY)
    with VendorServer(job.profiles, entity="Users", key=KEY) as server:
        yield server
        close_worker_clients()


@pytest.fixture
def config(vendor: VendorServer) -> ClientConfig:
    """Options of one worker."""
    return config_for(vendor)


def config_for(vendor: VendorServer, **arguments: Any) -> ClientConfig:
    """How workers reach the vendor. A name would cost a call more in each process: the entity is its id."""
    return ClientConfig(
        "census",
        options={"entity": vendor.entity_id, "base_url": vendor.base_url},
        secrets={"api_key": VARIABLE},
        **arguments,
    )


def lookups(vendor: VendorServer) -> int:
    """Calls for records: asking which entities there are, after the first 404, is not one."""
    return sum("/record" in call.path for call in vendor.calls)


def run_page(page: Path) -> None:
    """Runs the code of a page of the documentation."""
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(ROOT / page)
    examples = list(document)
    assert examples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # engines read the source file of their callers, and fail without one
        for example in examples:
            example.evaluate()
