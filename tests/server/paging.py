"""Page through a whole collection over HTTP while it is refreshed three times.

`make paging` reads a million profiles; `python -m tests.server.paging 20000` fewer. P5: each record that stays is
seen exactly once, regardless of concurrent changes, deletions, additions and reordering.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from profile_enrich.store import CollectionSpec, RefreshSpec, build_store, refresh_store

__all__ = ["Outcome", "page_through"]

SECRET = "the-secret-of-the-pager"
REFRESHES = ("changes", "rebuild", "back")
_HEADERS = {"authorization": f"Bearer {SECRET}", "amperity-tenant": "default", "api-version": "2025-07-31"}


@dataclass
class Outcome:
    """What was seen: how often each record, in how many pages, in which generations, and the slowest page."""

    size: int
    seen: Counter[str] = field(default_factory=Counter[str])
    pages: int = 0
    generations: list[int] = field(default_factory=list[int])
    during: int = 0
    """Pages that were asked for while a refresh was running."""
    slowest: float = 0.0
    """Seconds."""

    @property
    def stable(self) -> list[str]:
        """Return the records that were present throughout."""
        return [_id(n) for n in range(self.size) if n % 10]

    def check(self) -> None:
        wrong = [id for id in self.stable if self.seen[id] != 1]
        assert not wrong, (len(wrong), wrong[:3])
        assert len(self.generations) == len(set(self.generations)) == 1 + len(REFRESHES), self.generations


def _id(number: int) -> str:
    return f"u{number:07}"


def _write(path: Path, numbers: Iterable[int], turn: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("id,tier,turn\n")
        file.writelines(f"{_id(n)},{('gold', 'silver')[n % 2]},{turn if n % 100 == turn else 0}\n" for n in numbers)


def refresh(store: str, kind: str, size: int) -> None:
    """One refresh: each tenth record is added, removed or restored."""
    source = Path(store).with_name(f"{kind}.csv")
    numbers = [n for n in range(size) if n % 10 or kind == "back"]
    if kind == "rebuild":
        random.Random(3).shuffle(numbers)
    _write(source, [*numbers, *range(size, size + size // 50)], REFRESHES.index(kind) + 1)
    if kind == "rebuild":
        build_store(store, [CollectionSpec("Users", source, key="id", filterable=["tier"])])
    else:
        refresh_store(store, [RefreshSpec("Users", source, vanished="delete")])


@contextmanager
def _server(store: Path) -> Generator[str]:
    command = [sys.executable, "-m", "profile_enrich", "serve", "--store", str(store), "--port", "0"]
    environment = {**os.environ, "PROFILE_ENRICH_API_KEY": SECRET}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "http://" in line:
                    yield "http://" + line.partition("http://")[2].split()[0].rstrip("/.,")
                    break
            else:
                raise AssertionError("the server did not start")
        finally:
            server.terminate()


def page_through(folder: Path, size: int, limit: int) -> Outcome:
    """Run the test with the given page size."""
    store, people, outcome = folder / "people.store", folder / "people.csv", Outcome(size)
    _write(people, range(size), 0)
    build_store(store, [CollectionSpec("Users", people, key="id", filterable=["tier"])])
    marks = [size // limit * part // 4 for part in (1, 2, 3)]
    token = ""
    with _server(store) as url, httpx.Client(base_url=url, headers=_HEADERS, timeout=30, trust_env=False) as client:
        index = client.get("/api/indexes").json()["data"][0]["id"]

        def page() -> None:
            nonlocal token
            began = time.perf_counter()
            answer = client.get(
                f"/api/indexes/{index}/profiles", params={"limit": limit, **({"next_token": token} if token else {})}
            )
            outcome.slowest = max(outcome.slowest, time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
            body = answer.json()
            outcome.pages += 1
            outcome.seen.update(row["id"] for row in body["data"])
            token = body.get("next_token", "")

        def generation() -> int:
            status = client.get("/status").json()
            found: int = status["collections"][0]["generation"]
            return found

        outcome.generations.append(generation())
        page()
        while token:
            if marks and outcome.pages >= marks[0]:
                marks.pop(0)
                kind = REFRESHES[len(outcome.generations) - 1]
                stop = marks[0] if marks else size * 85 // 100 // limit  # a tenth may be removed
                with subprocess.Popen(
                    [sys.executable, "-m", "tests.server.paging", "--refresh", kind, store, str(size)]
                ) as at:
                    while at.poll() is None:  # paging continues meanwhile, and some pages remain for afterwards
                        if token and outcome.pages < stop - 1:
                            page()
                            outcome.during += 1
                        time.sleep(0.02)
                assert at.returncode == 0, kind
                until = time.monotonic() + 10
                while generation() == outcome.generations[-1] and time.monotonic() < until:
                    time.sleep(0.05)
                outcome.generations.append(generation())
            if token:  # without a cursor, paging would start over
                page()
    return outcome


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--refresh"]:
        refresh(arguments[2], arguments[1], int(arguments[3]))
        return
    size = int(arguments[0]) if arguments else 1_000_000
    with tempfile.TemporaryDirectory(prefix="profile-enrich-paging-") as folder:
        outcome = page_through(Path(folder), size, 1000)
    outcome.check()
    said = {
        "stable": len(outcome.stable),
        "pages": outcome.pages,
        "during_refreshes": outcome.during,
        "generations": outcome.generations,
        "slowest_page_ms": round(outcome.slowest * 1e3, 1),
    }
    sys.stdout.write(f"each stable record once: {json.dumps(said)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
