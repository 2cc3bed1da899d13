"""Helpers of the file tests: people, a client for them, and small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from profile_enrich import MemorySource, ProfileClient
from profile_enrich.pipeline.files import FileReport, enrich_file
from tests.pipeline.helpers import with_options

PEOPLE: dict[str, dict[str, object]] = {
    "u1": {"tier": "gold", "ltv": 12.5, "name": 'Ada, "A"\r\né', "tags": ["a", "b"]},
    "u2": {"tier": "silver", "ltv": 3, "name": "Bob", "tags": []},
    "7": {"tier": "bronze", "ltv": None, "name": "Cy", "tags": None},
}
CSV = 'user_id,note\nu1,"x, ""y"""\nu9,\nu2,"007"\nu1,last'


def client(people: dict[str, dict[str, object]] | None = None) -> ProfileClient:
    return ProfileClient(MemorySource(PEOPLE if people is None else people))


async def enrich(source: Path, target: Path, **options: Any) -> FileReport:
    options.setdefault("key", "user_id")
    options.setdefault("max_errors", 1.0)
    async with options.pop("client", None) or client() as profiles:
        return await enrich_file(source, target, client=profiles, **with_options(options))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def many(count: int) -> str:
    """Known, unknown and missing keys, and rows that are too short."""
    ids = ["u1", "u2", "u9", "7", ""]
    return "user_id,n\n" + "".join(f"{ids[n * n % 5]},{n}\n" if n % 7 else "short\n" for n in range(count))
