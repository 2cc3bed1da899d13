"""Building, refreshing and serving with `--database`, and serving with `--from`."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from profile_enrich.cli.app import cli
from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.store.shipping import publish_store
from tests.services.fixtures import postgres
from tests.services.postgres import Postgres

__all__ = ["postgres"]

KEY = "the-key-of-the-manifests"


@contextmanager
def serving(*options: str, **environment: str) -> Generator[str]:
    command = [sys.executable, "-m", "profile_enrich", "serve", "--port", "0", "--no-auth", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment}) as process:
        assert process.stdout is not None
        found = re.match(rb"Profile API at (\S+)", process.stdout.readline())
        try:
            assert found is not None
            yield found[1].decode()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def test_build_refresh_and_serve_a_database(tmp_path: Path, postgres: Postgres) -> None:
    schema = f"s_{secrets.token_hex(4)}"
    where = ["--database", postgres.dsn(), "--schema", schema]
    (tmp_path / "users.csv").write_text("id,tier\nu1,gold\nu2,silver\n")
    data = ["--data", str(tmp_path / "users.csv"), "--entity", "Users"]
    built = CliRunner().invoke(cli, ["index", "build", *where, *data, "--filter", "tier"])
    assert built.exit_code == 0, built.stderr
    (tmp_path / "users.csv").write_text("id,tier\nu1,platinum\nu2,silver\n")
    refreshed = CliRunner().invoke(cli, ["index", "refresh", *where, *data])
    assert (refreshed.exit_code, '"updated": 1' in refreshed.stderr) == (0, True), refreshed.stderr
    (tmp_path / "users.csv").write_text("id,tier\nu1,platinum\n")
    guarded = CliRunner().invoke(cli, ["index", "refresh", *where, *data, "--vanished", "delete"])
    assert guarded.exit_code != 0
    assert "would lose 1 of its 2 records" in guarded.stderr
    with serving(*where, "--workers", "2") as url:
        for _ in range(8):
            answer = httpx.get(f"{url}/api/v1/entities/1/record?record_id=u1")
            assert answer.json() == {"data": {"id": "u1", "tier": "platinum"}}


def test_changes_tombstones_status_list_and_drop(tmp_path: Path, postgres: Postgres) -> None:
    where = ["--database", postgres.dsn(), "--schema", f"s_{secrets.token_hex(4)}"]

    def run(*arguments: str) -> Result:
        return CliRunner(env={"PROFILE_ENRICH_STORE": None}).invoke(cli, ["index", *arguments, *where])

    for name in ("users.csv", "accounts.csv"):
        (tmp_path / name).write_text("id,tier\nu1,gold\nu2,silver\nu3,gold\n")
        assert run("build", "--data", str(tmp_path / name), "--entity", name[:-4]).exit_code == 0
    (tmp_path / "changes.csv").write_text("id,tier,gone\nu1,platinum,no\nu2,,yes\nu4,new,no\n")
    (tmp_path / "erased").write_text("u3\nnobody\n")
    changes = ["--changes", str(tmp_path / "changes.csv"), "--deleted-column", "gone"]
    changed = run("refresh", "--entity", "users", *changes)
    assert changed.exit_code == 0, changed.stderr
    assert re.search('"inserted": 1, "updated": 1, "unchanged": 0, "deleted": 1', changed.stderr)
    erased = run("refresh", "--entity", "users", "--tombstones", str(tmp_path / "erased"))
    # More than a fifth is deleted, but each by its key; one of the keys matches nothing.
    assert (erased.exit_code, "1 of the 2 ids to delete match no record" in erased.stderr) == (2, True)
    state = json.loads(run("status").stdout)
    assert (state["collections"], state["rows"], state["generation"], state["failures"]) == (2, 5, 4, 0)
    listed = {each["name"]: each["rows"] for each in json.loads(run("list").stdout)}
    assert listed == {"users": 2, "accounts": 3}
    assert "pass --yes" in run("drop", "users").stderr
    assert run("drop", "users", "--yes").exit_code == 0
    assert [each["name"] for each in json.loads(run("list").stdout)] == ["accounts"]
    assert "no collection 'users'" in run("drop", "users", "--yes").stderr


def test_serve_own_tables(postgres: Postgres) -> None:
    name = f"people_{secrets.token_hex(4)}"
    postgres.execute(
        f"CREATE TABLE {name} (user_id bigint PRIMARY KEY, tier text)", f"INSERT INTO {name} VALUES (7, 'gold')"
    )
    with serving("--database", postgres.dsn(), "--table", f"Users={name}", "--id", "user_id") as url:
        answer = httpx.get(f"{url}/api/v1/entities/1/record?record_id=7")
        assert answer.json() == {"data": {"user_id": 7, "tier": "gold"}}


@pytest.mark.long
def test_serve_what_is_published(tmp_path: Path) -> None:
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "u1", "tier": "gold"}])])
    publish_store(tmp_path / "s", str(tmp_path / "bucket"), key=KEY.encode())
    options = ["--from", str(tmp_path / "bucket"), "--store", str(tmp_path / "copy"), "--poll", "1s"]
    with serving(*options, PROFILE_ENRICH_SHIPPING_KEY=KEY) as url:
        assert httpx.get(f"{url}/api/v1/entities/1/record?record_id=u1").json()["data"]["tier"] == "gold"
        assert httpx.get(f"{url}/status").json()["refreshing"]["generation"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "build", "--data", "x.csv"], "--store DIRECTORY, or --database URL"),
        (["index", "build", "--data", "x.csv", "--store", "s", "--database", "postgresql://x"], "contradict"),
        (["index", "refresh", "--database", "postgresql://x"], "name the source with --data"),
        (["serve", "--no-auth", "--database", "postgresql://x", "--from", "y"], "contradict"),
        (["serve", "--no-auth", "--database", "postgresql://x", "--data", "users.csv"], "is built here"),
        (["serve", "--no-auth", "--database", "postgresql://x", "--table", "Users"], "write ENTITY=TABLE"),
        (["serve", "--no-auth", "--from", "y"], "PROFILE_ENRICH_SHIPPING_KEY"),
    ],
)
def test_what_does_not_fit_is_said_in_flags(arguments: list[str], message: str) -> None:
    run = CliRunner(env={"PROFILE_ENRICH_STORE": None, "PROFILE_ENRICH_SHIPPING_KEY": None}).invoke(cli, arguments)
    assert run.exit_code != 0
    assert message in run.stderr


@pytest.mark.parametrize(
    "place", [["--database", "postgresql://127.0.0.1:1/none"], ["--from", "/none"], ["--mirror", "none.sqlite"]]
)
def test_a_server_whose_records_are_elsewhere_does_not_refresh_them(place: list[str]) -> None:
    """Several servers may share a database, so cron runs `index refresh`."""
    result = CliRunner().invoke(cli, ["serve", *place, "--refresh-every", "1h"])
    assert result.exit_code == 2
    assert "--refresh-every" in result.stderr
    assert "leave them out" in result.stderr
