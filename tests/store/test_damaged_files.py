"""Damaged data files: the right answer or an error, never another one, and the process lives."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.errors import StoreError
from profile_enrich.store import CollectionSpec, LocalStore, RefreshSpec, build_store, refresh_store

SIZE = 600
ROUNDS = int(os.environ.get("FLIP_ROUNDS", "40"))
"""`FLIP_ROUNDS=2000 pytest tests/store/test_damaged_files.py` flips more."""


def person(number: int) -> dict[str, Any]:
    tier, city = ["gold", "silver", "bronze"][number % 3], f"city {number % 7}"
    return {"id": f"u{number}", "mail": f"m{number}@x.example", "tier": tier, "city": city, "note": "x" * 80}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a layer above it."""
    path = tmp_path_factory.mktemp("sound") / "s"
    people = [person(number) for number in range(SIZE)]
    build_store(path, [CollectionSpec("Users", people, filterable=["mail", "tier", "city"])])
    refresh_store(path, [RefreshSpec("Users", [{**person(n), "tier": "gold"} for n in range(0, SIZE, 40)])])
    return path


def answers(store: LocalStore, choose: random.Random) -> tuple[int, int]:
    """Check answers; return how many were right and how many were errors."""
    right = wrong = 0
    for _ in range(25):
        number = choose.randrange(SIZE)
        expected = {**person(number), **({"tier": "gold"} if number % 40 == 0 else {})}
        asked: list[dict[str, str]] = [{"tier": expected["tier"], "city": expected["city"]}, {"mail": expected["mail"]}]
        try:
            record = store.get("Users", f"u{number}")
            assert record is None or record.attributes == expected
            right += record is not None
            for filters in asked:
                page = store.page("Users", filters, limit=1000, with_total=True)
                assert page.total == len(page.payloads)
                for payload in map(json.loads, page.payloads):
                    found = payload["attributes"]
                    other = person(int(payload["id"][1:]))
                    assert found["mail"] == other["mail"]
                    assert filters.items() <= found.items()
                right += 1
        except StoreError as error:
            assert "is damaged" in str(error) or "cannot be read" in str(error)  # noqa: PT017  # either is right
            wrong += 1
    return right, wrong


def test_P10_flipped_bits_never_give_a_wrong_record(sound: Path, tmp_path: Path) -> None:
    damaged = 0
    for seed in range(ROUNDS):
        choose = random.Random(seed)
        path = tmp_path / str(seed)
        shutil.copytree(sound, path)
        file = choose.choice(sorted(path.glob("*.db")))
        content = bytearray(file.read_bytes())
        for _ in range(choose.choice([1, 8, 64])):
            content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        file.write_bytes(content)
        with LocalStore(path) as store:
            right, wrong = answers(store, choose)
        assert right + wrong
        damaged += bool(wrong)
        shutil.rmtree(path)
    assert damaged


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_P10_a_file_that_is_truncated_while_it_is_served_ends_nothing(
    sound: Path, tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    shutil.copytree(sound, path)
    with LocalStore(path) as store:
        assert answers(store, random.Random(1))[1] == 0
        file = min(path.glob("*.db"))
        os.truncate(file, int(file.stat().st_size * share))
        with caplog.at_level(logging.ERROR, "profile_enrich.store"):
            for seed in range(8):
                answers(store, random.Random(seed))
        with LocalStore(path) as opened_later:
            assert answers(opened_later, random.Random(2))[1] > 0
    assert "person" not in caplog.text
    assert "u1" not in [word for record in caplog.records for word in record.getMessage().split()]
