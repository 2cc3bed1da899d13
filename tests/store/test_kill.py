"""Kill the process that writes a store at any point: readers see all of the old or all of the new data."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from profile_enrich.store import CollectionSpec, LocalStore, RefreshSpec, build_store, put_record, refresh_store

from . import kill_runner as kill

POINTS = {"full": 16, "files": 8, "incremental": 16, "merging": 10, "single": 10}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of version 1: a base, and a layer above it."""
    path = tmp_path_factory.mktemp("kill") / "old"
    build_store(path, [CollectionSpec("Users", kill.rows(1), filterable=kill.FILTERS)])
    refresh_store(path, [RefreshSpec("Users", [{**kill.rows(1)[5], "tier": "changed"}])])
    refresh_store(path, [RefreshSpec("Users", [kill.rows(1)[5]])])
    return path


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    "work", [pytest.param(work, marks=() if work in ("full", "incremental") else pytest.mark.long) for work in POINTS]
)
def test_P4_killed_at_any_point_the_old_data_or_the_new_are_whole(work: str, old: Path, tmp_path: Path) -> None:
    """60 points: while rows are read, files written and synced, generations swapped and old files removed."""
    paths = [tmp_path / f"s{number}" for number in range(POINTS[work] + 2)]
    for path in paths:
        shutil.copytree(old, path)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, kill.rows(2)[0])
        writer.writeheader()
        writer.writerows(kill.rows(2))
    told = subprocess.run(
        [sys.executable, "-m", "tests.store.kill_runner", work, str(old), *map(str, paths)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent.parent, timeout=60,
    )  # fmt: skip
    assert told.stdout.split() == ["killed"] * POINTS[work]
    seen: set[int] = set()
    for path in paths[2:]:
        version = check_whole(path, single=work == "single")
        seen.add(version)
        # The next writer is not blocked, and leaves no temporary files.
        assert put_record(path, "Users", "after", {"v": 3}) is True
        named = {
            name for item in json.loads((path / "CURRENT").read_bytes())["collections"] for name, *_ in item["files"]
        }
        assert {file.name for file in path.glob("*.db*")} == named
        with LocalStore(path) as store:
            assert store.get("Users", "after") is not None
    assert seen == {1, 2}, "some points lie before the swap, some after it"


def check_whole(path: Path, *, single: bool) -> int:
    """Read everything in every way, and return the version found."""
    with LocalStore(path) as store:
        page = store.page("Users", limit=1000, dialect="census", with_total=True)
        found = [json.loads(payload)["data"] for payload in page.payloads]
        version: int = max(row["v"] for row in found)
        expected = kill.rows(1) + [kill.rows(2)[-1]] * (version - 1) if single else kill.rows(version)
        assert sorted(found, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])
        assert page.total == len(expected) == store.collection("Users").rows
        for row in expected[:: 1 if single else 10] + expected[-1:]:
            record = store.get("Users", row["id"])
            assert record is not None
            assert record.attributes == row
            assert [hit.attributes for hit in store.search("Users", {"mail": row["mail"]})] == [row]
        for tier in {row["tier"] for row in expected}:
            wanted = [row["id"] for row in expected if row["tier"] == tier]
            matching = store.page("Users", {"tier": tier}, limit=1000, dialect="census", with_total=True)
            assert matching.total == len(wanted) == len(matching.payloads)
        for gone in {row["tier"] for row in kill.rows(3 - version)} - {row["tier"] for row in expected}:
            assert store.page("Users", {"tier": gone}, with_total=True).total == 0
        return version
