"""`profile-enrich keys`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from profile_enrich.cli.app import cli
from profile_enrich.cli.commands import keys as module
from profile_enrich.cli.commands import serve as serving
from profile_enrich.server import FieldScope, KeyFile, ProfileAPI, Rate
from profile_enrich.server.cross_worker_state import SharedState
from profile_enrich.store import LocalStore

from ..server.helpers import ask, bearer, build


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "profiles.store"
    path.mkdir()
    return str(path)


def run(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments], env={"PROFILE_ENRICH_STORE": None, **env})


def test_add_prints_the_secret_alone_and_once(store: str) -> None:
    done = run("add", "website", "--store", store)
    assert done.exit_code == 0
    secret = done.stdout.strip()
    assert secret.startswith("pe_")
    assert secret not in done.stderr
    file = KeyFile(f"{store}.keys.json")
    key = file.by_secret(secret.encode())
    assert key is not None
    assert (key.id, key.entities, key.fields, key.rate, key.admin, key.expires_at) == (
        "website", None, {}, None, False, None,
    )  # fmt: skip
    listed = run("list", "--store", store)
    assert secret not in listed.output
    assert key.digest.hex() not in listed.output


def test_add_with_everything(store: str) -> None:
    done = run(
        "add", "partner", "--store", store, "--workspace", "acme", "--entity", "Orders", "--field", "Users:tier",
        "--field", "Users:a:b", "--hash", "Users:email", "--redact", "Users:phone", "--rate", "700/m",
        "--expires", "90d",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    stored = KeyFile(f"{store}.keys.json").stored()[0]
    key = stored.key
    assert key.workspace == "acme"
    assert key.entities == frozenset({"Orders", "Users"})
    scope = FieldScope(show=frozenset({"tier", "a:b"}), hash=frozenset({"email"}), redact=frozenset({"phone"}))
    assert key.fields == {"Users": scope}
    assert key.rate == Rate(700, 60)
    assert key.expires_at == stored.created_at + 90 * 86400
    row = json.loads(run("list", "--store", store).stdout)[0]
    assert row["fields"] == {"Users": {"show": ["a:b", "tier"], "hash": ["email"], "redact": ["phone"]}}
    assert (row["rate"], row["rotated"], row["old_secret_until"]) == ("700/m", None, None)


def test_rotate_and_revoke(store: str) -> None:
    old = run("add", "k", "--store", store).stdout.strip()
    done = run("rotate", "k", "--store", store, "--grace", "2h")
    new = done.stdout.strip()
    assert "good for 2 h more" in done.stderr
    file = KeyFile(f"{store}.keys.json")
    assert file.by_secret(old.encode()) == file.by_secret(new.encode()) is not None
    last = run("rotate", "k", "--store", store, "--grace", "0")
    assert "ends now" in last.stderr
    file = KeyFile(f"{store}.keys.json")
    assert file.by_secret(new.encode()) is None
    assert file.by_secret(last.stdout.strip().encode()) is not None
    assert run("revoke", "k", "--store", store).exit_code == 0
    assert KeyFile(f"{store}.keys.json").stored() == ()
    empty = run("list", "--store", store)
    assert (json.loads(empty.stdout), "There are no keys" in empty.stderr) == ([], True)


def test_a_table_on_a_terminal(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", "website", "--store", store, "--admin")
    shown: list[Any] = []
    monkeypatch.setattr(module, "shows_table", lambda as_json: True)
    monkeypatch.setattr(module, "print_table", lambda columns, rows: shown.extend([columns, *rows]))
    assert run("list", "--store", store).exit_code == 0
    row = dict(zip(shown[0], shown[1], strict=True))
    assert (row["id"], row["admin"], row["expires"]) == ("website", "yes", "-")


def test_the_file_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.json"
    assert run("add", "a", PROFILE_ENRICH_KEYS_FILE=str(file)).exit_code == 0
    assert run("add", "b", "--keys-file", str(file)).exit_code == 0
    assert len(KeyFile(file)) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "k"], "which keys?"),
        (["add", "k", "--store", "{s}", "--field", "Users"], "ENTITY:FIELD"),
        (["add", "k", "--store", "{s}", "--hash", ":email"], "ENTITY:FIELD"),
        (["add", "k", "--store", "{s}", "--field", "U:a", "--hash", "U:a"], "twice"),
        (["add", "k", "--store", "{s}", "--rate", "many"], "a rate is written"),
        (["add", "k", "--store", "{s}", "--expires", "soon"], "a time is written"),
        (["add", "k", "--store", "{s}", "--expires", "0"], "--expires must be"),
        (["add", "k", "--store", "{s}", "--admin", "--field", "U:a"], "whole records"),
        (["add", "a b", "--store", "{s}"], "the id of a key"),
        (["revoke", "k", "--store", "{s}"], "there is no key 'k'"),
        (["rotate", "k", "--store", "{s}"], "there is no key 'k'"),
        *[
            ([*command, "--store", "{s}.nowhere"], ".nowhere; `profile-enrich index build` makes it")
            for command in (["add", "k"], ["list"], ["rotate", "k"], ["revoke", "k"])
        ],
    ],
)
def test_mistakes_are_one_line(store: str, arguments: list[str], said: str) -> None:
    done = run(*(argument.replace("{s}", store) for argument in arguments))
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_names_that_the_store_has_not_are_refused(tmp_path: Path) -> None:
    build(tmp_path)
    store = str(tmp_path / "s")
    for arguments, said in (
        (["--entity", "users"], "has no entity 'users'; it has: Users, Orders, Wide"),
        (["--field", "Users:nope"], "Users has no field 'nope'; it has: id, email, tier, n, none"),
        (["--field", "Users:id", "--hash", "Users:nope"], "has no field 'nope'"),
        (["--redact", "Nobody:id"], "has no entity 'Nobody'"),
    ):
        done = run("add", "k", "--store", store, *arguments)
        assert (done.exit_code, said in done.stderr) == (2, True), done.output
    assert run("add", "k", "--store", store, "--field", "Users:id", "--hash", "Users:email").exit_code == 0


class TestServing:
    """Run `serve` with a key file."""

    @pytest.fixture
    def served(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """Return the responses of each started server: with the key's secret, and with the rate exhausted."""
        build(tmp_path)
        seen: list[tuple[int, int]] = []

        def serve_app(make: Callable[[SharedState], ProfileAPI], *_: object, **__: object) -> None:
            app = make(SharedState())
            seen.append((ask(app, "/status", headers=bearer(self.secret)).status, len(app.store.collections())))
            app.close()

        monkeypatch.setattr(serving, "serve_app", serve_app)
        monkeypatch.setattr(serving, "_log_to_stderr", lambda *_: None)  # it would affect other tests
        return seen

    secret = ""

    def serve(self, *arguments: str) -> Result:
        env = {"PROFILE_ENRICH_STORE": None, "PROFILE_ENRICH_API_KEY": None}
        return CliRunner().invoke(cli, ["serve", *arguments], env=env)

    def test_the_stores_own_file_is_found(self, tmp_path: Path, served: list[tuple[int, int]]) -> None:
        store = str(tmp_path / "s")
        refused = self.serve("--store", store)
        assert (refused.exit_code, "profile-enrich keys add" in refused.stderr) == (2, True)
        type(self).secret = run("add", "website", "--store", store, "--workspace", "acme").stdout.strip()
        done = self.serve(
            "--store", store, "--port", "0", "--rate", "100/s", "--audit-log", str(tmp_path / "audit.jsonl")
        )
        assert (done.exit_code, served) == (0, [(200, 3)]), done.output
        assert '"key":"website","kind":"status"' in (tmp_path / "audit.jsonl").read_text(encoding="utf-8")

    def test_a_store_of_a_configuration_file_is_refreshed_by_its_name(
        self, tmp_path: Path, served: list[tuple[int, int]]
    ) -> None:
        (tmp_path / "people.csv").write_text("id,tier\nu1,gold\n")
        config = '[server]\nstore = "new.store"\n[collections.People]\nsource = "people.csv"\nkey = "id"\n'
        (tmp_path / "server.toml").write_text(config)
        done = self.serve("--config", str(tmp_path / "server.toml"), "--no-auth", "--port", "0")
        assert done.exit_code == 0, done.output
        (tmp_path / "people.csv").write_text("id,tier\nu1,silver\n")
        done = CliRunner().invoke(cli, ["index", "refresh", "--store", str(tmp_path / "new.store")])
        assert done.exit_code == 0, done.output
        with LocalStore(tmp_path / "new.store") as store:
            record = store.get("People", "u1")
            assert record is not None
            assert record.attributes["tier"] == "silver"

    def test_mistakes(self, tmp_path: Path, served: list[tuple[int, int]]) -> None:
        store = str(tmp_path / "s")
        for arguments, said in (
            (["--keys-file", str(tmp_path / "none.json")], "there is no key file"),
            (["--keys-file", str(tmp_path / "none.json"), "--no-auth"], "contradicts"),
            (["--no-auth", "--rate", "many"], "a rate is written"),
        ):
            done = self.serve("--store", store, *arguments)
            assert (done.exit_code, said in done.stderr) == (2, True), done.output
        assert served == []
