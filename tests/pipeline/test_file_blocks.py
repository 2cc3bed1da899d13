"""Keys looked up a block at a time give the same output, dead letters and report as keys looked up one by one."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_enrich import MemorySource, ProfileClient, RateLimit, SourcePolicy, StoreSource
from profile_enrich.errors import ProfileEnrichError
from profile_enrich.pipeline.files import FileReport
from profile_enrich.pipeline.files import encoded_fields as ready_fields
from profile_enrich.pipeline.records.block_lookup import BlockLookup
from profile_enrich.store import CollectionSpec, build_store
from tests.pipeline.file_helpers import PEOPLE, enrich, many, write

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


class KeyByKey(MemorySource):
    """Has no `local_reader`."""

    def local_reader(self) -> None:
        return None


def facts(report: FileReport) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(report).items() if name != "seconds"}


async def both(tmp_path: Path, source: Path, target: str, people: Mapping[Any, Any], **options: Any) -> list[Any]:
    """What a run gives in each way: its report or its error, its output, its dead letters."""
    got: list[Any] = []
    for way in (MemorySource, KeyByKey):
        client = ProfileClient(way(people), ttl=3600.0)
        assert (BlockLookup.of(client) is None) == (way is KeyByKey)
        out, bad = tmp_path / f"{way.__name__}.{target}", tmp_path / f"{way.__name__}.bad"
        result: Any
        try:
            result = facts(await enrich(source, out, client=client, dead_letter=bad, force=True, **options))
        except ProfileEnrichError as error:
            result = (type(error), str(error))
        got.append((result, out.read_bytes() if out.exists() else None, bad.read_bytes() if bad.exists() else None))
    return got


VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
NESTED = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
)
IDS = ["u1", "u2", "u3", "7", "", "nobody", "x" * 600, "é", "\ud800"]


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
    """E1: whatever the records, the profiles and the options."""
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
    block, single = await both(
        tmp_path, source, target, people, fields=fields, on_missing=on_missing, max_errors=max_errors, **shape
    )
    assert [str(each).replace("KeyByKey", "MemorySource") for each in single] == [str(each) for each in block]


@pytest.mark.parametrize("target", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("remembered", [1, 3, 10_000])
async def test_E2_more_keys_than_are_remembered(
    tmp_path: Path, target: str, remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E2: memory is bounded; what is forgotten is read again."""
    monkeypatch.setattr(ready_fields, "_REMEMBERED", remembered)
    source = write(tmp_path / "in.csv", many(5000))
    block, single = await both(tmp_path, source, target, PEOPLE, fields=["tier", "ltv"])
    assert block[1:] == single[1:]
    assert {**block[0], "calls": 0} == {**single[0], "calls": 0}


async def test_a_parquet_file_of_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": pa.array([7, None, 8], pa.int64())}), tmp_path / "in.parquet")
    for target in ("csv", "jsonl", "parquet"):
        block, single = await both(tmp_path, tmp_path / "in.parquet", target, PEOPLE, fields=["tier"])
        assert block == single
        assert block[0]["calls"] == 2


async def test_E4_limits_hooks_and_a_used_client_are_kept_to() -> None:
    """E4: what a client promises holds; only a local source, asked for nothing but profiles, is read in blocks."""
    source = MemorySource(PEOPLE)
    assert BlockLookup.of(ProfileClient(source)) is not None
    assert BlockLookup.of(ProfileClient(source, hooks=[lambda details: None])) is None
    assert BlockLookup.of(ProfileClient(source, source_policy=SourcePolicy(rate_limit=RateLimit(5)))) is None
    assert BlockLookup.of(ProfileClient(MemorySource(lambda key: {"a": 1}))) is None
    async with ProfileClient(source) as used:
        await used.get("u1")
        assert BlockLookup.of(used) is None
    assert BlockLookup.of(used) is None


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
