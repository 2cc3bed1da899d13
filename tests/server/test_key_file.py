"""The key file: created, rotated, revoked, and read by a running server."""

from __future__ import annotations

import json
import multiprocessing
import stat
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from profile_enrich.errors import ConfigurationError
from profile_enrich.server import FieldScope, KeyFile, ProfileAPI, Rate
from profile_enrich.server.auth.api_keys import KeyRing
from profile_enrich.server.auth.key_file import keys_beside
from profile_enrich.store import LocalStore
from profile_enrich.testing import ManualClock

from .helpers import amperity, ask, bearer, build

NOW = 1_800_000_000.0
START = ManualClock()()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LocalStore(build(tmp_path_factory.mktemp("keys"))) as opened:
        yield opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def file(tmp_path: Path, clock: ManualClock) -> KeyFile:
    return KeyFile(tmp_path / "keys.json", clock=lambda: NOW - START + clock(), timer=clock)


def status(app: ProfileAPI, secret: str) -> int:
    return ask(app, "/api/v1/entities/1/record?record_id=u7", headers=bearer(secret)).status


def test_P2_what_is_stored_is_no_secret(file: KeyFile, caplog: pytest.LogCaptureFixture) -> None:
    key, secret = file.add(
        "partner",
        workspace="acme",
        fields={"Users": FieldScope(show=frozenset({"tier"}), hash=frozenset({"email"}))},
        rate=Rate(100, 60),
        expires_in=60,
    )
    text = file.path.read_text(encoding="utf-8")
    fresh = file.rotate("partner")
    for each in (secret, fresh, secret[3:], fresh[3:]):
        assert each not in text + file.path.read_text(encoding="utf-8") + repr(key) + repr(file.stored()) + caplog.text
    assert key.digest.hex() not in repr(key) + repr(file)
    assert key.salt.hex() not in repr(key)
    for path in file.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_comes_back_as_it_was(file: KeyFile) -> None:
    made = [
        file.add("a")[0],
        file.add("b", entities=["Users"], admin=True, rate=Rate.parse("amperity"))[0],
        file.add("c", workspace="acme", fields={"Users": FieldScope(redact=frozenset({"x"}))}, expires_in=90)[0],
    ]
    assert [each.key for each in KeyFile(file.path).stored()] == made
    assert [each.created_at for each in file.stored()] == [NOW] * 3
    assert KeyFile(file.path).workspaces == {"default", "acme"}
    assert made[2].expires_at == NOW + 90
    assert made[2].entities == frozenset({"Users"})


def test_a_server_follows_the_file_within_a_second(
    store: LocalStore, file: KeyFile, clock: ManualClock, tmp_path: Path
) -> None:
    operator = KeyFile(file.path, clock=lambda: NOW - START + clock())  # another process, as far as the server can see
    _, first = operator.add("first")
    clock.advance(2)
    app = ProfileAPI(store, keys=file)
    _, second = operator.add("second", entities=["Orders"])
    assert (status(app, first), status(app, second)) == (200, 401)
    clock.advance(0.9)
    assert status(app, second) == 401
    clock.advance(0.2)
    assert (status(app, first), status(app, second)) == (200, 403)
    operator.revoke("first")
    clock.advance(1.1)
    assert (status(app, first), status(app, second)) == (401, 403)
    file.path.unlink()
    clock.advance(1.1)
    assert status(app, second) == 401


def test_a_damaged_file_changes_nothing_and_is_said(
    store: LocalStore, file: KeyFile, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    _, secret = file.add("k")
    app = ProfileAPI(store, keys=file)
    whole = file.path.read_text(encoding="utf-8")
    for text in ("", "{", "[]", '{"format":1}', '{"format":9,"keys":[]}', whole.replace('"digest": "', '"digest": "0')):
        file.path.write_text(text, encoding="utf-8")
        clock.advance(1.1)
        assert status(app, secret) == 200
        assert status(app, secret) == 200
    file.path.write_bytes(b"\xff\xfe")
    clock.advance(1.1)
    assert status(app, secret) == 200
    assert caplog.text.count("the keys stay as they were") == 7
    assert secret not in caplog.text
    with pytest.raises(ConfigurationError, match="restore it"):
        KeyFile(file.path)
    with pytest.raises(ConfigurationError, match="restore it"):
        file.add("another")
    file.path.write_text(whole, encoding="utf-8")
    assert len(KeyFile(file.path)) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 1), ("id", "a b"), ("digest", "00"), ("digest", None), ("workspace", "a b"), ("entities", "Users"),
        ("entities", [1]), ("fields", []), ("fields", {"Users": {"show": "abc"}}), ("fields", {"Users": {}}),
        ("fields", {"Users": {"nope": ["a"]}}), ("rate", [0, 1, False]), ("rate", 3), ("expires_at", "never"),
        ("previous", "zz"), ("previous_until", None), ("salt", 1), ("created_at", "x"), ("rotated_at", "x"),
    ],
)  # fmt: skip
def test_entries_that_make_no_sense_are_refused(file: KeyFile, field: str, value: object) -> None:
    file.add("k")
    content = json.loads(file.path.read_text(encoding="utf-8"))
    content["keys"][0][field] = value
    file.path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigurationError):
        KeyFile(file.path)


def test_only_true_makes_an_administrator(file: KeyFile) -> None:
    file.add("k")
    content = json.loads(file.path.read_text(encoding="utf-8"))
    content["keys"][0]["admin"] = "false"
    file.path.write_text(json.dumps(content), encoding="utf-8")
    assert not KeyFile(file.path).stored()[0].key.admin


def test_rotation_keeps_the_old_secret_for_the_grace(store: LocalStore, file: KeyFile, clock: ManualClock) -> None:
    key, old = file.add("k", workspace="acme")
    app = ProfileAPI(store, keys=file)
    app._tokens._clock = lambda: NOW - START + clock()

    def token(secret: str) -> Any:
        form = urlencode({"client_id": "k", "client_secret": secret, "grant_type": "client_credentials"}).encode()
        return ask(app, "/api/v0/oauth2/token", method="POST", headers={"amperity-tenant": "acme"}, body=form)

    def lists(bearer_token: str) -> int:
        return ask(app, "/api/indexes", headers=amperity(bearer_token)).status

    before = token(old).json["access_token"]
    clock.advance(5)
    new = file.rotate("k", grace=100)
    clock.advance(1.1)
    assert (status(app, old), status(app, new)) == (200, 200)
    after = token(new).json["access_token"]
    assert (lists(before), lists(after)) == (200, 200)
    stored = file.stored()[0]
    assert (stored.rotated_at, stored.key.salt) == (NOW + 5, key.salt)
    clock.advance(100)
    assert (status(app, old), status(app, new)) == (401, 200)
    assert (lists(before), lists(after)) == (401, 200)
    assert token(old).status == 401
    last = file.rotate("k", grace=0)
    clock.advance(1.1)
    assert (status(app, new), status(app, last)) == (401, 200)
    assert lists(after) == 401


def test_a_key_ends(store: LocalStore, file: KeyFile, clock: ManualClock) -> None:
    _, secret = file.add("k", expires_in=50)
    app = ProfileAPI(store, keys=file)
    assert status(app, secret) == 200
    token = app._tokens.issue(file.stored()[0].key, NOW + 1e6)
    headers = amperity(token, tenant="default")
    assert ask(app, "/api/indexes", headers=headers).status == 200
    clock.advance(50)
    assert status(app, secret) == 401
    assert ask(app, "/api/indexes", headers=headers).status == 401
    assert len(file.stored()) == 1


def test_mistakes_are_said(file: KeyFile, tmp_path: Path) -> None:
    file.add("k")
    with pytest.raises(ConfigurationError, match="already"):
        file.add("k")
    for act in (file.revoke, file.rotate):
        with pytest.raises(ConfigurationError, match="there is no key 'nobody'"):
            act("nobody")
    with pytest.raises(ConfigurationError, match="expires_in"):
        file.add("z", expires_in=0)
    with pytest.raises(ConfigurationError, match="grace"):
        file.rotate("k", grace=-1)
    with pytest.raises(ConfigurationError, match="does not exist; create it first"):
        KeyFile(tmp_path / "nowhere" / "keys.json").add("k")
    with pytest.raises(ConfigurationError, match="is not a file"):
        KeyFile(tmp_path)
    (tmp_path / "keys.json.new").mkdir()
    with pytest.raises(ConfigurationError, match="never replaced"):
        file.add("z")
    assert [each.key.id for each in file.stored()] == ["k"]


def test_P6_an_empty_file_is_no_key(store: LocalStore, file: KeyFile) -> None:
    with pytest.raises(ConfigurationError, match="at least one key"):
        ProfileAPI(store, keys=file)
    with pytest.raises(ConfigurationError, match="contradict"):
        ProfileAPI(store, keys=file, no_auth=True)


def test_keys_are_beside_the_store() -> None:
    assert keys_beside("data/profiles.store/") == Path("data/profiles.store.keys.json")


def test_the_documented_setting_names_the_file_that_the_command_writes() -> None:
    page = Path(__file__).parents[2].joinpath("docs/server.md").read_text(encoding="utf-8")
    sample = tomllib.loads(page[page.index("[server]\n") : page.index("[collections.Users]")])["server"]
    assert sample["keys_file"] == str(keys_beside(sample["store"]))


def test_one_secret_opens_one_key(file: KeyFile) -> None:
    key, _ = file.add("k")
    from dataclasses import replace

    with pytest.raises(ConfigurationError, match="same secret"):
        KeyRing([key, replace(key, id="other")])
    with pytest.raises(ConfigurationError, match="same secret"):
        KeyRing([key, replace(key, id="other", digest=bytes(32), previous=key.digest)])


def _add(path: Path, name: str) -> None:
    file = KeyFile(path)
    for number in range(5):
        file.add(f"{name}{number}")


@pytest.mark.long
def test_several_processes_write_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add, args=(path, name)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(each.key.id for each in KeyFile(path).stored()) == sorted(f"{n}{i}" for n in "ab" for i in range(5))
