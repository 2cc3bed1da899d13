"""Each benchmark runs, in tiny sizes, and yields the rows it promises. How fast things are is not asserted here."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from benchmarks import __main__ as everything
from benchmarks import _machine, _peers, expiry, hit, memory, miss, page, request, stampede
from benchmarks._measure import Spread, interleave, number
from benchmarks._pages import BARE, KINDS
from benchmarks._table import Table, Verdict
from benchmarks._vendor import CONDITIONS


def names(table: Table) -> list[str]:
    return [row[0] for row in table.rows]


def figure(cell: str) -> float:
    return float(cell.replace(",", ""))


def assert_positive(table: Table, *columns: str) -> None:
    for row in table.rows:
        for column in columns:
            assert figure(row[table.columns.index(column)]) > 0, (row[0], column)


def peers() -> set[str]:
    return set(_peers.async_peers())


@pytest.mark.long
def test_a_fresh_hit_has_ours_the_dictionaries_and_each_installed_peer() -> None:
    (table,) = hit.run(True)
    fixed = {
        "dict.get", "cachetools LRUCache.get", "cachetools TTLCache.get", "profile_enrich lookup", "profile_enrich get",
        "profile_enrich find", "profile_enrich lookup, a ProfileKey", "profile_enrich lookup, with a hook",
        "profile_enrich lookup, with Prometheus", "profile_enrich lookup, with OpenTelemetry",
        "cachetools TTLCache.get under a lock",
    }  # fmt: skip
    cachebox = {"cachebox LRUCache.get", "cachebox TTLCache.get"} if importlib.util.find_spec("cachebox") else set()
    assert set(names(table)) == fixed | peers() | cachebox
    assert_positive(table, "CPU ns")


@pytest.mark.long
def test_a_request_has_each_stack() -> None:
    (table,) = request.run(True)
    assert names(table) == [
        "bare Starlette",
        "+ no-op pure ASGI middleware",
        "+ no-op that wraps send",
        "+ no-op that wraps send and sets state; page reads it",
        "+ SessionMiddleware",
        "+ BaseHTTPMiddleware, no-op",
        "+ ours, excluded path",
        "+ ours, hit, not read",
        "+ ours, hit, read",
        "+ ours, prefetch, hit, read",
        "+ ours, lazy, hit, read",
        "+ ours, lazy, not read",
        "+ hand-written, hit, read",
        "+ SessionMiddleware + ours, hit, read",
        "+ SessionMiddleware + hand-written, hit, read",
    ]
    assert_positive(table, "CPU µs")


@pytest.mark.long
def test_a_miss_has_each_installed_transport_three_ways() -> None:
    (table,) = miss.run(True)
    installed = [name for name in ("aiohttp", "httpx2", "httpx") if importlib.util.find_spec(name)]
    assert names(table) == [f"{name} {way}" for name in installed for way in ("raw client", "source", "client")]
    assert_positive(table, "CPU µs a call", "× raw client")


@pytest.mark.long
def test_a_stampede_counts_the_upstream_calls_of_each_contender() -> None:
    one, many = stampede.run(True)
    for table, ours in ((one, 1), (many, 100)):
        calls = {row[0]: figure(row[1]) for row in table.rows}
        assert set(calls) == {"profile_enrich", "TTLCache by hand"} | peers()
        assert calls["profile_enrich"] == ours
        assert calls["TTLCache by hand"] == 100
        assert all(verdict.met for verdict in table.verdicts)


@pytest.mark.long
def test_expiry_has_ours_beside_cachetools() -> None:
    (table,) = expiry.run(True)
    assert names(table) == [
        "profile_enrich", "TTLCache", "TLRUCache", "LRUCache (nothing expires)", "profile_enrich, clear()",
    ]  # fmt: skip
    assert_positive(table, "longest block, CPU ms")


@pytest.mark.long
def test_memory_has_four_sizes_of_each_contender() -> None:
    (table,) = memory.run(True)
    assert names(table) == 4 * [
        "profile_enrich", "profile_enrich, values alone", "dict of dicts", "LRUCache of dicts", "TTLCache of dicts",
        "dict of JSON bytes",
    ]  # fmt: skip
    assert_positive(table, "JSON bytes", "bytes a profile", "× dict of dicts")
    for row in table.rows:  # a profile cannot take less than the shortest form of it
        assert figure(row[2]) > figure(row[1]) * 0.9


@pytest.mark.long
def test_a_page_has_each_shop_in_each_condition() -> None:
    (table,) = page.run(True)
    rows = [f"{condition}: {kind}" for condition in CONDITIONS for kind in KINDS if kind != BARE]
    assert names(table) == [f"healthy: {BARE}", *rows]
    assert_positive(table, "p50 ms, first half", "p50 ms, second half")
    assert all(row[1].endswith(f" of {page.QUICK.visits}") for row in table.rows)
    calls = {row[0]: row[-1] for row in table.rows}
    assert calls[f"healthy: {BARE}"] == "0"
    assert all(figure(calls[f"hung: {kind}"]) > 0 for kind in KINDS if kind != BARE)


async def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    turns: list[str] = []

    def contender(name: str) -> Callable[[], Awaitable[float]]:
        async def once() -> float:
            turns.append(name)
            return float(len(turns))

        return once

    found = await interleave({name: contender(name) for name in "abc"}, 2)
    assert "".join(turns) == "abcbcacab"
    assert {name: len(spread.values) for name, spread in found.items()} == {"a": 2, "b": 2, "c": 2}
    assert found["a"].values == (6.0, 8.0)


def test_ratios_and_differences_are_taken_round_by_round() -> None:
    base, other = Spread((1.0, 10.0, 100.0)), Spread((2.0, 20.0, 300.0))
    assert other.over(base) == 2.0
    assert other.above(base) == 10.0
    assert (str(other), other.range) == ("20.0", "2.00 … 300")


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.1234, "0.12"), (9.999, "10.0"), (12_345.6, "12,346")])
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_the_whole_run_writes_machine_versions_tables_and_missed_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table("A | title", ("contender", "ns"), notes=["A remark."])
    table.add("one | two", 3)
    table.verdicts = [Verdict("under 2 ns", "3 ns", met=False), Verdict("over 2 ns", "3 ns", met=True)]
    quick: list[bool] = []

    def run(tiny: bool) -> Iterable[Table]:
        quick.append(tiny)
        return [table]

    monkeypatch.setattr(hit, "run", run)
    output = tmp_path / "RESULTS.md"
    everything.main(["--quick", "--only", "hit", "--output", str(output)])
    text = output.read_text()
    assert quick == [True]
    assert "`--quick` run" in text
    assert "| one \\| two | 3 |" in text
    assert "- A | title. Target: under 2 ns. Measured: 3 ns: MISSED." in text
    assert text.count("over 2 ns") == 1
    for name, value in [*_machine.facts(), *_machine.versions()]:
        assert f"{name}: {value}" in text or f"{name} {value}" in text
    assert "one | two" in capsys.readouterr().out


def test_a_partial_or_quick_run_writes_nothing_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hit, "run", lambda tiny: [])
    before = everything.RESULTS.read_text() if everything.RESULTS.exists() else None
    everything.main(["--only", "hit"])
    assert (everything.RESULTS.read_text() if everything.RESULTS.exists() else None) == before
