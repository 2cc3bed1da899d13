"""`profile-enrich serve`: a Profile API over the user's own files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from profile_enrich.cli.app import cli
from profile_enrich.cli.build_progress import specifications
from profile_enrich.errors import ConfigurationError
from profile_enrich.store import CollectionSpec, LocalStore, build_store
from tests.cli.test_cli import on_a_terminal

KEY = "0123456789abcdefghij"
USERS = "user_id,email,tier\nu1,a@b.example,gold\nu2,b@b.example,silver\nu1,c@b.example,gold\n,d@b.example,none\n"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.csv"
    path.write_text(USERS)
    return path


class Served:
    """A running command: its output so far, and its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.shown = ""
        self._errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()
        assert process.stdout is not None
        for line in process.stdout:
            self.shown += line
            if line.startswith("Ctrl-C"):
                break
        found = re.search(r"http://\S+", self.shown)
        self.url = found[0] if found else ""

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors += self.process.stderr.readlines()

    def stop(self, number: signal.Signals) -> str:
        """Stop the server, and return its stderr."""
        self.process.send_signal(number)
        self.process.wait(30)
        self._reader.join()
        return "".join(self._errors)


@contextlib.contextmanager
def serving(temporary: Path, *arguments: str | Path, **env: str) -> Generator[Served]:
    temporary.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "profile_enrich", "serve", "--port", "0", *map(str, arguments)],
        env={**os.environ, "TMPDIR": str(temporary), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        served = Served(process)
        try:
            yield served
        finally:
            if process.poll() is None:
                process.kill()
            served._reader.join()


def invoke(*arguments: str | Path, **env: str) -> Result:
    return CliRunner(env=env).invoke(cli, ["serve", *map(str, arguments)])


@pytest.mark.long
def test_files_are_served_in_both_dialects_and_nothing_stays_behind(users: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    arguments: list[str | Path] = [
        "--data",
        users,
        "--entity",
        "Users",
        "--id",
        "user_id",
        "--filter",
        "email",
        "--access-log",
    ]
    with serving(temporary, *arguments, PROFILE_ENRICH_API_KEY=KEY) as served:
        assert served.url.startswith("http://127.0.0.1:")
        assert "Users: 2 records by user_id; entity 1" in served.shown
        printed = re.findall(r"^    (curl (?:.+\\\n)*.+)$", served.shown, re.MULTILINE)
        assert len(printed) == 2
        assert '-H "Authorization: Bearer $PROFILE_ENRICH_API_KEY"' in printed[0]
        assert max(map(len, served.shown.splitlines())) <= 80
        for line in printed:
            typed = subprocess.run(
                ["bash", "-c", line.replace("curl", "curl --silent --fail --noproxy '*'", 1)],
                env={**os.environ, "PROFILE_ENRICH_API_KEY": KEY}, capture_output=True, timeout=20,
            )  # fmt: skip
            assert json.loads(typed.stdout)["data"], line
        bearer = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=served.url, headers=bearer, trust_env=False) as client:
            record = client.get("/api/v1/entities/1/record", params={"record_id": "u1"}).json()
            assert record["data"]["email"] == "c@b.example"
            assert client.get("/api/v1/entities", headers={"authorization": "Bearer wrong"}).status_code == 401
        ask = ["lookup", "u2", "--source", "census", "--base-url", f"{served.url}/api/v1", "--entity", "Users"]
        found = CliRunner(env={"PROFILE_ENRICH_API_KEY": KEY}).invoke(cli, ask)
        assert json.loads(found.stdout)["tier"] == "silver"
        env = {"PROFILE_ENRICH_TOKEN": KEY, "PROFILE_ENRICH_TENANT": "default"}
        ask = ["export", "--index", "Users", "--base-url", f"{served.url}/api", "--filter", "email=b@b.example"]
        exported = CliRunner(env=env).invoke(cli, ask)
        assert exported.exit_code == 0, exported.output
        assert exported.stdout.splitlines()[1].startswith("u2,")
        examined = CliRunner(env=env).invoke(cli, ["doctor", "--index", "Users", "--base-url", f"{served.url}/api"])
        assert examined.exit_code == 0, examined.output
        assert [path.name[:15] for path in temporary.iterdir()] == ["profile-enrich-"]
        said = served.stop(signal.SIGINT)
    assert served.process.returncode == 130
    assert list(temporary.iterdir()) == []
    assert "Users: 2 records of 4 rows." in said
    assert "1 row had the id of an earlier row and replaced it (the first: row 3)" in said
    assert "1 row left out: the key is missing or empty (the first: row 4)" in said
    assert "rows/s" in said
    assert "200" in said  # the access log
    for private in (KEY, "b.example", "record_id"):
        assert private not in served.shown.replace("record_id=ID", "") + said


@pytest.mark.long
def test_a_store_is_built_once_and_served_again(users: Path, tmp_path: Path) -> None:
    store = tmp_path / "profiles.store"
    accounts = tmp_path / "accounts.jsonl"
    accounts.write_text('{"id": "a1", "plan": "pro"}\n')
    two: list[str | Path] = [
        "--data",
        users,
        "--entity",
        "Users",
        "--id",
        "user_id",
        "--data",
        accounts,
        "--entity",
        "Accounts",
        "--id",
        "id",
    ]
    with serving(tmp_path / "t", *two, "--store", store, "--filter", "Accounts:plan", "--no-auth") as served:
        assert "Accounts: 1 records by id; entity 2" in served.shown
        assert "Authorization" not in served.shown
        assert httpx.get(f"{served.url}/api/v1/entities/2/record?record_id=a1").json()["data"]["plan"] == "pro"
        served.stop(signal.SIGTERM)
    assert served.process.returncode == 143
    with serving(tmp_path / "t", "--store", store, "--generate-key", "--workspace", "acme") as served:
        found = re.search(r"export PROFILE_ENRICH_API_KEY=(\S+)", served.shown)
        assert found is not None
        assert served.shown.count(found[1]) == 1  # shown once
        bearer = {"authorization": f"Bearer {found[1]}"}
        assert len(httpx.get(f"{served.url}/api/v1/entities", headers=bearer).json()["data"]) == 2
        assert '"amperity-tenant: acme"' in served.shown
        said = served.stop(signal.SIGTERM)
    assert found[1] not in said
    assert "Built" not in said
    with LocalStore(store) as kept:
        assert [each.name for each in kept.collections()] == ["Users", "Accounts"]


@pytest.mark.long
def test_a_taken_port_is_said_and_the_temporary_store_is_removed(users: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["--data", users, "--id", "user_id", "--no-auth"]
    with serving(tmp_path / "t", *arguments) as served:
        port = served.url.rpartition(":")[2]
        again = subprocess.run(
            [sys.executable, "-m", "profile_enrich", "serve", "--port", port, *map(str, arguments)],
            env={**os.environ, "TMPDIR": str(tmp_path / "t")},
            capture_output=True,
            text=True,
        )
        assert again.returncode == 2
        assert f"port {port} on 127.0.0.1 is taken" in again.stderr
        assert "rows" not in again.stderr  # the error is found before the build
        assert "Traceback" not in again.stderr
        assert len(list((tmp_path / "t").iterdir())) == 1
        served.stop(signal.SIGINT)


@pytest.mark.long
def test_on_a_terminal_the_build_is_shown(users: Path, tmp_path: Path) -> None:
    rows = "".join(f"u{n},{n}@b.example,gold\n" for n in range(60_000))
    users.write_text(f"user_id,email,tier\n{rows}")
    arguments = ["serve", "--data", str(users), "--id", "user_id", "--no-auth", "--port", "0"]
    code, shown = on_a_terminal(arguments, {"TMPDIR": str(tmp_path)}, until=b"curl")
    assert code == 143
    assert "Building users" in shown
    assert "users: 60,000 records of 60,000 rows." in shown


def test_an_address_that_cannot_be_had_is_said_before_the_build(users: Path, tmp_path: Path) -> None:
    arguments = ["serve", "--data", str(users), "--id", "user_id", "--host", "not an address", "--no-auth"]
    done = CliRunner(env={"TMPDIR": str(tmp_path)}).invoke(cli, arguments)
    assert done.exit_code == 2
    assert "is not an address of this machine" in done.stderr
    assert "Built" not in done.stderr


@pytest.mark.long
def test_SIGTERM_while_building_removes_the_temporary_store(users: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    users.write_text("user_id,email\n" + "".join(f"u{n},{n}@b.example\n" for n in range(400_000)))
    with subprocess.Popen(
        [sys.executable, "-m", "profile_enrich", "serve", "--data", str(users), "--id", "user_id", "--no-auth"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
    ) as process:
        limit = time.monotonic() + 30
        while not list(temporary.iterdir()):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)
        process.terminate()
        assert process.wait(20) == 143
    assert list(temporary.iterdir()) == []


@pytest.mark.long
def test_what_a_kill_left_behind_the_next_run_removes(users: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    arguments: list[str | Path] = ["--data", users, "--id", "user_id", "--no-auth"]
    with serving(temporary, *arguments) as alive, serving(temporary, *arguments) as killed:
        killed.stop(signal.SIGKILL)
        assert len(list(temporary.iterdir())) == 2
        with serving(temporary, *arguments) as fresh:
            assert len(list(temporary.iterdir())) == 2  # of the two that run
            assert httpx.get(f"{alive.url}/api/v1/entities").status_code == 200
            fresh.stop(signal.SIGHUP)  # the terminal was closed
        assert len(list(temporary.iterdir())) == 1
        alive.stop(signal.SIGTERM)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--data FILE"),
        (["--store", "x", "--entity", "Users"], "describe --data"),
        (["--data", "USERS"], "who may ask?"),
        (["--data", "USERS", "--no-auth", "--generate-key"], "contradicts"),
        (["--data", "USERS", "--key", "short-5ecret"], "16"),
        (["--data", "USERS", "--entity", "A", "--entity", "B", "--no-auth"], "1 --data but 2 --entity"),
        (["--data", "USERS", "--id", "a", "--id", "b", "--no-auth"], "1 --data but 2 --id"),
        (["--data", "USERS", "--id", "nothing", "--no-auth"], "nothing"),
        (["--data", "/no/such/file.csv", "--no-auth"], "/no/such/file.csv"),
        (["--data", "/dev/null", "--no-auth"], "set format = 'csv' (in [collections.NAME] of the --config file)"),
        (["--store", "/no/such/store", "--no-auth"], "/no/such/store"),
        (["--data", "USERS", "--port", "99999", "--no-auth"], "--port"),
    ],
)
def test_P6_what_cannot_be_served_is_refused_before_it_listens(
    users: Path, tmp_path: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: for example, it refuses to start without a key unless `--no-auth` is given."""
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    done = invoke(*(str(users) if argument == "USERS" else argument for argument in arguments))
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "5ecret" not in done.output
    assert not list(temporary.iterdir())


def test_P11_a_file_that_was_emptied_does_not_empty_the_store_that_is_served(users: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    build_store(store, [CollectionSpec("users", users, key="user_id")])
    users.write_text(users.read_text().splitlines()[0] + "\n")
    done = invoke("--data", str(users), "--id", "user_id", "--store", str(store), "--no-auth", "--port", "0")
    assert done.exit_code == 2
    assert "would lose" in done.stderr
    assert "--allow-shrink" in done.stderr
    with LocalStore(store) as opened:
        assert opened.collection("users").rows


def test_several_files_are_described_in_order() -> None:
    one, two = Path("users.csv.gz"), Path("accounts.csv")
    [first, second] = specifications([one, two], [], [], ["users:email", "accounts:plan", "users:tier"])
    assert (first.name, first.key, list(first.filterable)) == ("users", "id", ["email", "tier"])
    assert (second.name, second.key, list(second.filterable)) == ("accounts", "id", ["plan"])
    [first, second] = specifications([one, two], ["U", "A"], ["user_id"], [])
    assert (first.name, first.key, second.name, second.key) == ("U", "user_id", "A", "user_id")
    [only] = specifications([one], ["U"], [], ["email", "U:tier"])
    assert list(only.filterable) == ["email", "tier"]
    for arguments, said in [
        (([one, two], ["A"], [], []), "2 --data but 1 --entity"),
        (([one, two], ["A", "A"], [], []), "same entity name"),
        (([one, two], [], ["a", "b", "c"], []), "3 --id"),
        (([one, two], [], [], ["email"]), "ENTITY:COLUMN"),
    ]:
        with pytest.raises(ConfigurationError, match=said):
            specifications(*arguments)
