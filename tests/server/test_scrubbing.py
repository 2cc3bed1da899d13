"""A served local store is verified in the background."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from profile_enrich.server import ProfileAPI, app
from profile_enrich.store import CollectionSpec, build_store


def test_P10_damage_that_no_write_made_is_found_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": f"u{number}"} for number in range(600)])])
    (file,) = (tmp_path / "s").glob("*.db")
    facts, content = file.stat(), bytearray(file.read_bytes())
    for start in range(0, len(content), 2048):
        if content[start] in (2, 10):  # a page of an index
            content[start : start + 2048] = content[start : start + 2048].replace(b"u567", b"v567")
    file.write_bytes(content)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    monkeypatch.setattr(app, "_SCRUB_PAUSE", 0.01)
    with TestClient(ProfileAPI(tmp_path / "s", no_auth=True)) as client:
        end = time.monotonic() + 60
        while _status(client, "u567") != 503 and time.monotonic() < end:
            time.sleep(0.01)
        assert (_status(client, "u567"), _status(client, "nobody"), _status(client, "u1")) == (503, 503, 200)
        assert any(thread.name == "profile_enrich-scrubber" for thread in threading.enumerate())
    assert not any(thread.name == "profile_enrich-scrubber" for thread in threading.enumerate())


def _status(client: TestClient, record_id: str) -> int:
    return client.get("/api/v1/entities/1/record", params={"record_id": record_id}).status_code
