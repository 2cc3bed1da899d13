"""Generations shipped through object storage: a directory, and a real S3 API on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from profile_enrich.errors import ConfigurationError, StoreError
from profile_enrich.store import CollectionSpec, LocalStore, RefreshSpec, build_store, refresh_store
from profile_enrich.store.shipping import GenerationFollower, follower, publish_store
from tests.services.requirements import need
from tests.services.valkey import Cuttable

KEY = b"the key of the manifests"
ROWS = [{"id": f"u{n}", "tier": ["gold", "silver"][n % 2], "text": f"{n:0200}"} for n in range(2000)]

Place = tuple[str, dict[str, Any] | None]


@pytest.fixture(scope="module")
def s3() -> Generator[dict[str, Any]]:
    need(True, "moto", "pip install 'moto[server]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "endpoint": f"http://{host}:{port}",
        "access_key_id": "key",
        "secret_access_key": "secret",
        "region": "us-east-1",
        "virtual_hosted_style_request": "false",
    }
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        return str(tmp_path / "bucket"), None
    import httpx

    options = request.getfixturevalue("s3")
    name = f"b{abs(hash(str(tmp_path))) % 10**9}"
    httpx.put(f"{options['endpoint']}/{name}").raise_for_status()
    return f"s3://{name}/profiles", options


@pytest.fixture
def built(tmp_path: Path) -> Path:
    build_store(tmp_path / "built", [CollectionSpec("Users", ROWS, filterable=["tier"])])
    return tmp_path / "built"


def test_servers_take_up_what_is_published(built: Path, place: Place, tmp_path: Path) -> None:
    url, options = place
    first = publish_store(built, url, key=KEY, options=options)
    assert (first.sequence, first.generation, first.unchanged) == (1, 1, False)
    assert publish_store(built, url, key=KEY, options=options).unchanged
    ones = [GenerationFollower(tmp_path / f"copy{n}", url, key=KEY, options=options) for n in range(2)]
    assert all(one.poll() for one in ones)
    assert not ones[0].poll()
    with LocalStore(tmp_path / "copy0", check_every=0) as store, LocalStore(tmp_path / "copy1", check_every=0) as other:
        assert [store.get("Users", row["id"]).attributes for row in ROWS[:50]] == ROWS[:50]  # type: ignore[union-attr]
        token = store.page("Users", {"tier": "gold"}, limit=10).next_cursor
        assert other.page("Users", {"tier": "gold"}, limit=10, cursor=token).payloads  # every server accepts it
        refresh_store(built, [RefreshSpec("Users", [{"id": "u1", "tier": "new"}], deleted=["u2"])])
        second = publish_store(built, url, key=KEY, options=options)
        assert second.uploaded == 1  # a small layer, not the base
        assert second.bytes < first.bytes
        assert ones[0].poll()
        assert store.get("Users", "u1").attributes["tier"] == "new"  # type: ignore[union-attr]
        assert store.get("Users", "u2") is None
        assert other.get("Users", "u2") is not None
        assert store.page("Users", {"tier": "gold"}, limit=10, cursor=token).payloads
    status = ones[0].status()
    assert (status["sequence"], status["generation"], status["last_error"]) == (2, 2, None)
    assert 0 <= status["age_seconds"] < 120


def test_a_store_built_from_nothing_is_taken_up_too(built: Path, place: Place, tmp_path: Path) -> None:
    url, options = place
    publish_store(built, url, key=KEY, options=options)
    one = GenerationFollower(tmp_path / "copy", url, key=KEY, options=options)
    one.poll()
    build_store(tmp_path / "fresh", [CollectionSpec("Users", ROWS[:10])])
    publish_store(tmp_path / "fresh", url, key=KEY, options=options)
    with LocalStore(tmp_path / "copy", check_every=0) as store:
        assert store.get("Users", "u500") is not None
        assert one.poll()
        assert store.get("Users", "u500") is None
        assert store.collection("Users").rows == 10


def test_only_the_last_publications_are_kept(built: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "bucket")
    for version in range(6):
        build_store(built, [CollectionSpec("Users", [{"id": "u", "version": version}])])
        publish_store(built, url, key=KEY, keep=2)
    assert len(list((tmp_path / "bucket" / "generations").iterdir())) == 2
    assert len(list((tmp_path / "bucket" / "files").iterdir())) == 2
    one = GenerationFollower(tmp_path / "copy", url, key=KEY, keep=2)
    for version in range(6, 10):
        build_store(built, [CollectionSpec("Users", [{"id": "u", "version": version}])])
        publish_store(built, url, key=KEY)
        assert one.poll()
    assert len(list((tmp_path / "copy").glob("*.db"))) == 2


def test_nothing_secret_is_published(built: Path, tmp_path: Path) -> None:
    publish_store(built, str(tmp_path / "bucket"), key=KEY)
    secret = json.loads((built / "CURRENT").read_bytes())["secret"]
    for file in (tmp_path / "bucket").rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes()
            assert KEY not in file.read_bytes()


def test_what_was_changed_on_the_way_is_never_served(built: Path, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    publish_store(built, str(bucket), key=KEY)
    one = GenerationFollower(tmp_path / "copy", str(bucket), key=KEY)
    assert one.poll()
    old = (bucket / "CURRENT").read_bytes()
    refresh_store(built, [RefreshSpec("Users", [{"id": "u1", "tier": "new"}])])
    publish_store(built, str(bucket), key=KEY)
    good = (bucket / "CURRENT").read_bytes()
    new = next(
        file
        for file in (bucket / "files").iterdir()
        if file.stat().st_mtime_ns == max(each.stat().st_mtime_ns for each in (bucket / "files").iterdir())
    )
    content = new.read_bytes()
    with LocalStore(tmp_path / "copy", check_every=0) as store:
        (bucket / "CURRENT").write_bytes(good.replace(b'generation\\": 2', b'generation\\": 3'))
        with pytest.raises(StoreError, match="not signed with this key"):
            one.poll()
        (bucket / "CURRENT").write_bytes(b"{}")
        with pytest.raises(StoreError, match="not signed"):
            one.poll()
        (bucket / "CURRENT").write_bytes(good)
        with pytest.raises(StoreError, match="not signed"):
            GenerationFollower(tmp_path / "x", str(bucket), key=b"another key, as long").poll()
        new.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(StoreError, match="not what the signed manifest says"):
            one.poll()
        assert store.get("Users", "u1").attributes["tier"] == "silver"  # type: ignore[union-attr]
        new.unlink()
        with pytest.raises(StoreError, match="lacks a file"):
            one.poll()
        new.write_bytes(content)
        assert one.poll()
        assert store.get("Users", "u1").attributes["tier"] == "new"  # type: ignore[union-attr]
        (bucket / "CURRENT").write_bytes(old)  # correctly signed, but older
        assert not one.poll()
        assert store.get("Users", "u1").attributes["tier"] == "new"  # type: ignore[union-attr]


def test_a_server_that_is_killed_mid_download_resumes(
    built: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, options = place
    publish_store(built, url, key=KEY, options=options)
    script = (
        "import time\n"
        "from profile_enrich.store.shipping import GenerationFollower, follower\n"
        "follower._CHUNK = 20_000\n"
        f"one = GenerationFollower({str(tmp_path / 'copy')!r}, {url!r}, key={KEY!r}, options={options!r})\n"
        "real, count = one._bucket.get_range, 0\n"
        "def slowly(*given):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == 6: print('ready', flush=True); time.sleep(60)\n"
        "    return real(*given)\n"
        "one._bucket.get_range = slowly\n"
        "one.poll()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    with pytest.raises(StoreError, match="there is no store"):
        LocalStore(tmp_path / "copy")
    parts = list((tmp_path / "copy").glob("*.part"))
    assert [part.stat().st_size for part in parts] == [100_000]
    one = GenerationFollower(tmp_path / "copy", url, key=KEY, options=options)
    asked: list[int] = []
    real = one._bucket.get_range

    def counting(path: str, start: int, end: int) -> bytes | None:
        asked.append(start)
        return real(path, start, end)

    monkeypatch.setattr(one._bucket, "get_range", counting)
    assert one.poll()
    assert min(asked) == 100_000
    with LocalStore(tmp_path / "copy") as store:
        assert store.get("Users", "u1999") is not None


def test_a_network_that_is_cut_mid_download_costs_what_was_under_way(
    built: Path, s3: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    httpx.put(f"{s3['endpoint']}/cut").raise_for_status()
    publish_store(built, "s3://cut/profiles", key=KEY, options=s3)
    wire = Cuttable(urlsplit(s3["endpoint"]).port or 0)
    options = {**s3, "endpoint": f"http://127.0.0.1:{wire.port}"}
    monkeypatch.setattr(follower, "_CHUNK", 20_000)
    one = GenerationFollower(tmp_path / "copy", "s3://cut/profiles", key=KEY, options=options)
    asked: list[int] = []
    real = one._bucket.get_range

    def counting(path: str, start: int, end: int) -> bytes | None:
        asked.append(start)
        if asked == [0, 20_000, 40_000, 60_000, 80_000, 100_000]:
            wire.cut()
        return real(path, start, end)

    monkeypatch.setattr(one._bucket, "get_range", counting)
    try:
        with pytest.raises(StoreError, match="cannot be read"):
            one.poll()
        assert asked[-1] == 100_000
        with pytest.raises(StoreError, match="there is no store"):
            LocalStore(tmp_path / "copy")
        wire.mend()
        asked.clear()
        assert one.poll()
        assert min(asked) == 100_000
        with LocalStore(tmp_path / "copy") as store:
            assert store.get("Users", "u1999") is not None
    finally:
        wire.close()


def test_it_starts_from_what_it_has_when_the_bucket_is_away(built: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "bucket")
    publish_store(built, url, key=KEY)
    GenerationFollower(tmp_path / "copy", url, key=KEY).poll()
    away = {"endpoint": "http://127.0.0.1:9", "access_key_id": "k", "secret_access_key": "s", "region": "x"}
    one = GenerationFollower(tmp_path / "copy", "s3://gone/profiles", key=KEY, options=away)
    assert one.ready
    one.wait_until_ready(0)
    assert "cannot be read" in one.status()["last_error"]
    assert one.status()["generation"] == 1
    nothing = GenerationFollower(tmp_path / "empty", str(tmp_path / "other"), key=KEY)
    assert not nothing.ready
    with pytest.raises(StoreError, match="nothing is published"):
        nothing.wait_until_ready(0)


def test_it_looks_by_itself_and_is_closed_in_the_middle(built: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "bucket")
    publish_store(built, url, key=KEY)
    with GenerationFollower(tmp_path / "copy", url, key=KEY, every=0.05) as one:
        one.wait_until_ready(5)
        one.start()
        refresh_store(built, [RefreshSpec("Users", [{"id": "u1", "tier": "new"}])])
        publish_store(built, url, key=KEY)
        end = time.monotonic() + 10
        while one.status()["sequence"] != 2:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert one._thread is None


def test_a_copy_that_was_damaged_is_downloaded_again(built: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "bucket")
    publish_store(built, url, key=KEY)
    GenerationFollower(tmp_path / "copy", url, key=KEY).poll()
    data = next((tmp_path / "copy").glob("*.db"))
    data.write_bytes(data.read_bytes()[:-100])
    one = GenerationFollower(tmp_path / "copy", url, key=KEY)
    assert not one.ready
    assert one.poll()
    with LocalStore(tmp_path / "copy") as store:
        assert store.get("Users", "u1999") is not None


def test_wrong_arguments_are_said() -> None:
    with pytest.raises(ConfigurationError, match="at least 16 bytes"):
        publish_store("x", "/tmp/x", key=b"short")
    with pytest.raises(ConfigurationError, match="object storage"):
        GenerationFollower("x", "ftp://x/y", key=KEY)
    with pytest.raises(ConfigurationError, match="every"):
        GenerationFollower("x", "/tmp/x", key=KEY, every=0)
