"""Keys looked up a block at a time give the same output, dead letters and report as keys looked up one by one."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_enrich import MemorySource, ProfileClient, ProfileKey, RateLimit, SourcePolicy, StoreSource
from profile_enrich._utils.deadline import Deadline
from profile_enrich.client.breaker import Breaker
from profile_enrich.errors import ProfileEnrichError, SourceUnavailable
from profile_enrich.pipeline.files import FileReport, enrich_file
from profile_enrich.pipeline.options import EnrichOptions
from profile_enrich.pipeline.records.block_lookup import BatchLookup, BlockLookup, block_lookup
from profile_enrich.sources.base import SourceResult
from profile_enrich.store import CollectionSpec, build_store
from tests.pipeline.file_helpers import PEOPLE, enrich, many, write

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


class KeyByKey(MemorySource):
    """Has no `local_reader`."""

    def local_reader(self) -> None:
        return None


class InBatches(KeyByKey):
    """Answers up to three keys in one call; the calls that `failing` names fail."""

    batch_size = 3
    failing: Container[int] = ()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[int] = []

    async def fetch_many(self, keys: Sequence[ProfileKey], *, deadline: Deadline) -> Mapping[ProfileKey, SourceResult]:
        self.asked.append(len(keys))
        if len(self.asked) in self.failing:
            raise SourceUnavailable("it fails")
        return {key: await self.fetch(key, deadline=deadline) for key in keys}


def facts(report: FileReport) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(report).items() if name != "seconds"}


async def both(tmp_path: Path, source: Path, target: str, people: Mapping[Any, Any], **options: Any) -> list[Any]:
    """Return the report or error, the output and the dead letters of a run in each mode."""
    got: list[Any] = []
    for way, lookup in ((MemorySource, BlockLookup), (KeyByKey, type(None)), (InBatches, BatchLookup)):
        client = ProfileClient(way(people), ttl=3600.0)
        assert type(block_lookup(client, EnrichOptions())) is lookup
        out, bad = tmp_path / f"{way.__name__}.{target}", tmp_path / f"{way.__name__}.bad"
        result: Any
        try:
            result = facts(await enrich(source, out, client=client, dead_letter=bad, force=True, **options))
        except ProfileEnrichError as error:
            result = (type(error), str(error))
        if way is InBatches and isinstance(result, dict):
            result["calls"] = got[1][0]["calls"]  # not so many: see below
        got.append((result, out.read_bytes() if out.exists() else None, bad.read_bytes() if bad.exists() else None))
    return got


VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
NESTED = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
)
IDS = ["u1", "u2", "u3", "7", "", "nobody", "x" * 600, "é", "\ud800"]


@pytest.mark.long
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=st.dictionaries(
        st.sampled_from(["u1", "u2", "u3", "7", "é"]), st.dictionaries(st.sampled_from("abn"), NESTED, max_size=3)
    ),
    rows=st.lists(
        st.tuples(st.sampled_from([*IDS, 7, True, 1.5, None]), st.text('a,"\r\n;é', max_size=3)), max_size=12
    ),
    kinds=st.tuples(st.sampled_from(["csv", "jsonl"]), st.sampled_from(["csv", "jsonl", "parquet"])),
    fields=st.sampled_from([None, ["a"], ["b", "n"]]),
    shape=st.sampled_from([{}, {"into": "n"}, {"prefix": ""}]),
    on_missing=st.sampled_from(["null", "drop", "dead_letter", "raise"]),
    max_errors=st.sampled_from([1.0, 1]),
)
async def test_E1_the_same_in_both_ways(
    tmp_path: Path,
    people: dict[str, dict[str, Any]],
    rows: list[tuple[Any, str]],
    kinds: tuple[str, str],
    fields: list[str] | None,
    shape: dict[str, Any],
    on_missing: str,
    max_errors: float,
) -> None:
    """E1: for any records, profiles and options."""
    kind, target = kinds
    tmp_path = Path(tempfile.mkdtemp(dir=tmp_path))
    source = tmp_path / f"in.{kind}"
    if kind == "jsonl":
        source.write_text("".join(json.dumps({"user_id": key, "n": note}) + "\n" for key, note in rows))
    else:
        cells = (
            (str("" if key is None else key).replace("\ud800", "?"), note.replace('"', '""')) for key, note in rows
        )
        source.write_text("user_id,n\n" + "".join(f'{key},"{note}"\n' for key, note in cells), newline="")
    block, single, batches = await both(
        tmp_path, source, target, people, fields=fields, on_missing=on_missing, max_errors=max_errors, **shape
    )
    assert [str(each) for each in single] == [str(each) for each in block]
    assert [str(each) for each in single] == [str(each) for each in batches]


LINES = [
    "u1,x\n",
    "u2,\n",
    'u2,"x"\n',
    "u1,x\r\n",
    "\n",
    'u3,"a\nb"\n',
    '"u1","a,b"\n',
    "u1\n",
    "u1,a,b\n",
    ",x\n",
    "7,é\n",
]
LINES += ["nobody,\\\n", 'u2,"a\r"\n', "u1,\r\n", "u1,\0\n", "u1,\t\n", "u1,x\r\r\n", 'u1,a"b\n']


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.sampled_from(LINES) | st.just("u1,x\n"), max_size=8),
    last=st.sampled_from(["", "u1,x", 'u1,"x"', "u1,x\r"]),
    target=st.sampled_from(["csv", "tsv", "jsonl"]),
    encoding=st.sampled_from([None, "utf-16", "cp1252"]),
    fields=st.sampled_from([["a"], ["a", "b"], None]),
    shape=st.sampled_from([{}, {"into": "n"}, {"prefix": ""}]),
)
async def test_E1_the_same_in_both_ways_whatever_the_lines(
    tmp_path: Path,
    lines: list[str],
    last: str,
    target: str,
    encoding: str | None,
    fields: list[str] | None,
    shape: dict[str, Any],
) -> None:
    """E1: quotes, line endings, blank and broken lines, in lines that are read together."""
    tmp_path = Path(tempfile.mkdtemp(dir=tmp_path))
    source = tmp_path / "in.csv"
    source.write_bytes("".join(["user_id,n\n", *lines, last]).encode(encoding or "utf-8"))
    people: dict[Any, Any] = {"u1": {"a": "😀", "b": 'é"'}, "u2": {"a": "x,y", "n": 1.5}, "7": {"a": [None, "\n"]}}
    if fields is None and target != "jsonl" and "into" not in shape:
        fields = ["a"]  # all attributes of a CSV need a second pass, which has no lines of its own
    block, single, batches = await both(
        tmp_path, source, target, people, encoding=encoding, fields=fields,
        options=EnrichOptions(max_errors=1.0), **shape,
    )  # fmt: skip
    assert block == single == batches


@pytest.mark.long
@pytest.mark.parametrize("target", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("remembered", [1, 3, 10_000])
async def test_E2_more_keys_than_are_remembered(
    tmp_path: Path, target: str, remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E2: memory is bounded; evicted profiles are read again."""
    for lookup in (BlockLookup, BatchLookup):
        monkeypatch.setattr(lookup, "remembered", remembered)
    source = write(tmp_path / "in.csv", many(5000))
    block, single, batches = await both(tmp_path, source, target, PEOPLE, fields=["tier", "ltv"])
    assert block[1:] == single[1:] == batches[1:]
    assert {**block[0], "calls": 0} == {**single[0], "calls": 0}


async def test_a_parquet_file_of_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": pa.array([7, None, 8], pa.int64())}), tmp_path / "in.parquet")
    for target in ("csv", "jsonl", "parquet"):
        block, single, batches = await both(tmp_path, tmp_path / "in.parquet", target, PEOPLE, fields=["tier"])
        assert block == single == batches
        assert block[0]["calls"] == 2


async def test_E4_limits_hooks_and_a_used_client_are_kept_to() -> None:
    """E4: only a local source without client features is read in blocks, so the client's guarantees hold."""
    source = MemorySource(PEOPLE)
    assert BlockLookup.of(ProfileClient(source)) is not None
    assert BlockLookup.of(ProfileClient(source, hooks=[lambda details: None])) is None
    assert BlockLookup.of(ProfileClient(source, source_policy=SourcePolicy(rate_limit=RateLimit(5)))) is None
    assert BlockLookup.of(ProfileClient(MemorySource(lambda key: {"a": 1}))) is None
    async with ProfileClient(source) as used:
        await used.get("u1")
        assert BlockLookup.of(used) is None
    assert BlockLookup.of(used) is None


async def test_E2_each_key_is_asked_for_once_in_as_few_calls_as_possible(tmp_path: Path) -> None:
    """E2: the keys of a block share calls, and none is looked up twice."""
    source = write(tmp_path / "in.csv", "user_id\n" + "".join(f"u{n % 100}\n" for n in range(1000)))
    batches = InBatches({f"u{n}": {"tier": "gold"} for n in range(60)})
    report = await enrich(source, tmp_path / "out.csv", client=ProfileClient(batches), fields=["tier"])
    assert (report.written, report.missing, report.calls) == (1000, 400, 34)
    assert sum(batches.asked) == 100


@pytest.mark.parametrize("failing", [{1}, range(1, 6), range(4, 100, 7)])
async def test_E10_keys_whose_call_failed_are_asked_for_again(tmp_path: Path, failing: Container[int]) -> None:
    """E10: the result is that of single lookups, with the client's retries."""
    source = write(tmp_path / "in.csv", "user_id\n" + "".join(f"u{n}\n" for n in range(100)))
    batches = InBatches({f"u{n}": {"tier": n} for n in range(100)})
    batches.failing = failing
    policy = SourcePolicy(breaker=Breaker(100, open_for=0.01))
    client = ProfileClient(batches, source_policy=policy)
    report = await enrich(source, tmp_path / "out.csv", client=client, fields=["tier"])
    assert (tmp_path / "out.csv").read_text() == "user_id,profile_tier\n" + "".join(f"u{n},{n}\n" for n in range(100))
    assert report.calls == len(batches.asked) > 34


async def test_E10_a_source_that_stays_away_makes_dead_letters(tmp_path: Path) -> None:
    """E10: no key fails without a call, and the run ends if too many fail."""
    source = write(tmp_path / "in.csv", "user_id\nu1\nu2\nu3\nu4\n")
    batches = InBatches({"u1": {"tier": "gold"}})
    batches.failing = range(1000)
    options = EnrichOptions(retry_timeout=0.0, max_errors=1.0)
    report = await enrich_file(
        source, tmp_path / "out.csv", client=ProfileClient(batches), key="user_id", fields=["tier"],
        options=options, dead_letter=tmp_path / "bad",
    )  # fmt: skip
    assert report.reasons == {"source_unavailable": 4}


async def test_E2_each_key_is_asked_for_once_whatever_the_cache_keeps(tmp_path: Path) -> None:
    """E2: `enrich_file` keeps the profiles of the run itself."""
    source = write(tmp_path / "in.csv", "user_id\n" + "".join(f"u{n % 100}\n" for n in range(1000)))
    people = KeyByKey({f"u{n}": {"tier": "gold"} for n in range(60)})
    hours = itertools.count(0.0, 3600.0)
    for cache in ({"max_entries": 5}, {"stale_ttl": 0.0, "timer": hours.__next__}):
        client = ProfileClient(people, **cache)
        report = await enrich(source, tmp_path / "out.csv", client=client, fields=["tier"], force=True)
        assert (report.written, report.missing, report.calls) == (1000, 400, 100)


async def test_a_damaged_record_of_a_store_is_one_dead_letter(tmp_path: Path) -> None:
    """E9: the others of its block are enriched."""
    data = tmp_path / "people.jsonl"
    data.write_text("".join(json.dumps({"id": f"u{n}", "tier": f"tier-{n:04}"}) + "\n" for n in range(300)))
    build_store(tmp_path / "store", [CollectionSpec("people", data, key="id")])
    (file,) = [each for each in (tmp_path / "store").rglob("*") if b"tier-0123" in each.read_bytes()]
    file.write_bytes(file.read_bytes().replace(b"tier-0123", b"tier-9999"))
    source = write(tmp_path / "in.csv", "user_id\n" + "".join(f"u{n}\n" for n in range(299, 99, -1)))
    client = ProfileClient(StoreSource(tmp_path / "store", collection="people"))
    report = await enrich(source, tmp_path / "out.csv", client=client, fields=["tier"], dead_letter=tmp_path / "bad")
    assert (report.rows, report.written, report.reasons) == (200, 199, {"source_unavailable": 1})
    assert json.loads((tmp_path / "bad").read_text())["record"] == {"user_id": "u123"}
    assert "9999" not in (tmp_path / "out.csv").read_text()
