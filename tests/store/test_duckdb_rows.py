"""Payloads of CSV rows by DuckDB: the same bytes and the same rejected rows as row by row."""

from __future__ import annotations

import csv
from pathlib import Path

from profile_enrich.store import (
    BuildProgress,
    BuildReport,
    CollectionSpec,
    LocalStore,
    RefreshedCollection,
    RefreshSpec,
    build_store,
    refresh_store,
)

NASTY = [
    "",
    "a",
    "quote \" and '",
    "back\\slash",
    "line\nbreak\t",
    "\x01\x08\x0c\x7f",
    "ünïcödé 😀",
    "{braces} [1]",
    "null",
]


def built(file: Path, path: Path, *, bulk: bool, progress: list[BuildProgress] | None = None) -> BuildReport:
    """With a file for rejects, rows are read one by one."""
    spec = CollectionSpec(
        "Users",
        file,
        filterable=["te'xt", "n", "flag", "price"],
        index_fields=["id", "te'xt", "n", "flag", "price"],
        rejects=None if bulk else path.with_suffix(".rejects"),
    )
    return build_store(path, [spec], progress=None if progress is None else progress.append)


def test_the_bytes_are_those_of_the_other_way(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "te'xt", "n", "flag", "price", 'hid"den'])
        for number, text in enumerate(NASTY):
            flag = ["TRUE", "false", ""][number % 3]
            writer.writerow([f"k{text}" if number else "k", text, number or "", flag, f"{number}.50", text])
        writer.writerow(["", "no key", 1, "true", "1.00", ""])
        writer.writerow(["k" * 3000, "long key", 1, "true", "1.00", ""])
        writer.writerow(["é" * 600, "long enough", 1, "true", "1.00", ""])
        writer.writerow(["huge", "x" * (1 << 20), 1, "true", "1.00", ""])
    told: list[BuildProgress] = []
    one = built(file, tmp_path / "bulk", bulk=True, progress=told).collections[0]
    other = built(file, tmp_path / "rows", bulk=False).collections[0]
    assert told[-1].rows == one.read == len(NASTY) + 4
    assert one.rejected == other.rejected
    assert sum(one.rejected.values()) == 3
    assert (one.stored, one.first_rejected) == (other.stored, other.first_rejected) == (len(NASTY) + 1, len(NASTY) + 1)
    assert one.collection.columns == other.collection.columns
    assert one.collection.index_fields == other.collection.index_fields
    with LocalStore(tmp_path / "bulk") as bulk, LocalStore(tmp_path / "rows") as rows:
        for dialect in ("census", "amperity"):
            for number, text in enumerate(NASTY):
                key = f"k{text}" if number else "k"
                payload = bulk.get_payload("Users", key, dialect)
                assert payload is not None
                assert payload == rows.get_payload("Users", key, dialect)
        for filters in ({"te'xt": NASTY[2]}, {"n": "3"}, {"flag": "true"}, {"price": "4.50"}):
            one_page = bulk.page("Users", filters, with_total=True)
            assert one_page == rows.page("Users", filters, with_total=True)
            assert one_page.payloads


def people(file: Path, texts: list[str]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "te'xt", "n", "flag", "price", 'hid"den'])
        for number, text in enumerate(texts):
            writer.writerow([f"k{number}", text, number or "", ["TRUE", "false", ""][number % 3], f"{number}.50", text])
        writer.writerow(["", "no key", 1, "true", "1.00", ""])
        writer.writerow(["k1", "x" * (1 << 20), 1, "true", "1.00", ""])
    return file


def refreshed(path: Path, file: Path, *, bulk: bool) -> RefreshedCollection:
    rejects = None if bulk else path.with_suffix(".refresh-rejects")
    return refresh_store(path, [RefreshSpec("Users", file, rejects=rejects)]).collections[0]


def test_a_refresh_writes_the_bytes_of_the_other_way(tmp_path: Path) -> None:
    first, second = people(tmp_path / "first.csv", NASTY), people(tmp_path / "second.csv", [*NASTY[::-1], "new"])
    found: list[tuple[object, ...]] = []
    for bulk in (True, False):
        path = tmp_path / f"{bulk}"
        built(first, path, bulk=True)
        report = refreshed(path, second, bulk=bulk)
        with LocalStore(path) as store:
            payloads = {
                (key, dialect): store.get_payload("Users", key, dialect)
                for key in [f"k{number}" for number in range(len(NASTY) + 1)]
                for dialect in ("census", "amperity")
            }
            pages = [store.page("Users", {"te'xt": text}, limit=10).payloads for text in NASTY[1:5]]
        found.append((report.read, report.inserted, report.updated, report.rejected, report.first_rejected, payloads))
        assert all(len(page) == 1 for page in pages)
        assert sum(report.rejected.values()) == 2
    assert found[0] == found[1]


def test_a_refresh_from_the_same_file_changes_nothing(tmp_path: Path) -> None:
    file = people(tmp_path / "people.csv", NASTY)
    built(file, tmp_path / "s", bulk=True)
    report = refreshed(tmp_path / "s", file, bulk=True)
    assert (report.unchanged, report.inserted, report.updated) == (len(NASTY), 0, 0)
