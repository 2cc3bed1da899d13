"""Data files that are damaged while the server reads them, and a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from profile_enrich.server import KeyFile
from profile_enrich.store import CollectionSpec, build_store

from .running import KEY, Served, Skipped, serving

__all__ = ["damaged", "full_disk"]

FLIPS = 300


def damaged(directory: Path) -> tuple[bool, str]:
    """A served data file is damaged 300 times: flipped bits, or a truncated end."""
    pick = random.Random(17)
    store = directory / "damaged.store"
    rows = [{"id": f"u{n}", "email": f"u{n}@x.example", "text": "x" * 60} for n in range(3_000)]
    build_store(store, [CollectionSpec("Users", rows, filterable=["email"])])
    sound = {file: file.read_bytes() for file in store.glob("*.db")}
    answers: Counter[int | str] = Counter()
    wrong = 0
    with serving(directory, "--store", str(store), "--workers", "2") as served:
        workers = served.workers()
        for _ in range(FLIPS):
            file = pick.choice(sorted(sound))
            content = bytearray(sound[file])
            if pick.random() < 0.2:
                os.truncate(file, pick.randrange(len(content)))
            else:
                for _ in range(pick.choice([1, 8, 64])):
                    content[pick.randrange(len(content))] ^= 1 << pick.randrange(8)
                file.write_bytes(content)
            for _ in range(40):
                number = pick.randrange(len(rows))
                status, body = _record(served, f"u{number}")
                answers[status] += 1
                if status == 200:
                    with contextlib.suppress(ValueError):
                        wrong += json.loads(body) != {"data": rows[number]}
                        continue
                    wrong += 1
            file.write_bytes(sound[file])
        fine = not wrong and set(answers) <= {200, 503} and served.workers() == workers and served.get() == 200
    return fine, f"{answers.total():,} reads: {dict(answers)}, {wrong} wrong; no worker died"


def _record(served: Served, id: str) -> tuple[int | str, bytes]:
    return served.ask(
        f"GET /api/v1/entities/1/record?record_id={id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        "connection: close\r\n\r\n"
    )


@contextlib.contextmanager
def _small_disk(at: Path, size: str) -> Generator[None]:
    at.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], capture_output=True, check=False)
    if made.returncode:
        raise Skipped("needs root, to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def full_disk(directory: Path) -> tuple[bool, str]:
    """Audit log and store on a full disk of 3 MB: reads, single records, a refresh; then space is freed."""
    disk = directory / "disk"
    with _small_disk(disk, "3m"):
        store, log, filler = disk / "s", disk / "audit.jsonl", disk / "filler"
        build_store(store, [CollectionSpec("Users", [{"id": f"u{n}", "email": "x"} for n in range(500)])])
        _, secret = KeyFile(directory / "full.keys.json").add("admin", admin=True)
        arguments = ["--store", str(store), "--audit-log", str(log), "--keys-file", str(directory / "full.keys.json")]
        with serving(directory, *arguments, keys="") as served:
            reads = Counter(_asked(served, "GET", n, secret) for n in range(200))
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(b"x" * 4096)
                    file.flush()
            reads += Counter(_asked(served, "GET", n, secret) for n in range(500))
            writes = Counter(_asked(served, "PUT", n, secret) for n in range(20))
            refresh = subprocess.run(
                [sys.executable, "-m", "profile_enrich", "index", "refresh", "--store", str(store), "--data",
                 str(directory / "users.csv"), "--entity", "Users", "--id", "id"], capture_output=True, check=False,
            ).returncode  # fmt: skip
            reads += Counter(_asked(served, "GET", n, secret) for n in range(300))
            filler.unlink()
            reads += Counter(_asked(served, "GET", n, secret) for n in range(10))
            later = _asked(served, "PUT", 1, secret)
            served.process.terminate()
            code = served.process.wait(20)
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        dropped = sum(line.get("dropped", 0) for line in lines)
        shutil.rmtree(store)
    asked = reads.total() + writes.total() + 1
    fine = set(reads) == {200} and set(writes) == {503} and refresh not in (0, 1) and later == 200 and code == 143
    return (
        fine and len(lines) + dropped == asked and dropped > 0,
        f"reads {dict(reads)}, writes {dict(writes)}, refresh ends with {refresh}; {asked} requests are {len(lines)}"
        f" lines and {dropped} reported as dropped; after space is freed a write gives {later}",
    )


def _asked(served: Served, method: str, number: int, secret: str) -> int | str:
    body = '{"email":"y"}' if method == "PUT" else ""
    return served.ask(
        f"{method} /api/v1/entities/1/record?record_id=u{number} HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {secret}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"
    )[0]
