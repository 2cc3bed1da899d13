"""`profile-enrich index mirror`: filling a mirror ahead of time, and comparing it with the vendor."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from profile_enrich.cli.app import cli
from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.store.mirror_store import MirrorStore
from profile_enrich.testing import VendorServer, faults

PEOPLE: dict[str, dict[str, object]] = {f"0{n}": {"tier": "gold", "n": str(n)} for n in range(6)}


@pytest.fixture
def vendor() -> Generator[VendorServer]:
    people = {key: dict(value) for key, value in PEOPLE.items()}
    with VendorServer(people, entity="Users", key="vendors-key", tenant="acme") as server:
        yield server


def run(vendor: VendorServer, *arguments: object, kind: str = "census", key: str = "vendors-key") -> Result:
    where = vendor.base_url if kind == "census" else vendor.amperity_url
    tenant = ["--upstream-tenant", "acme"] if kind == "amperity" else []
    command = ["index", "mirror", "--upstream", kind, "--upstream-url", where, "--entity", "Users", *tenant]
    variables = {"PROFILE_ENRICH_UPSTREAM_KEY": key, "PROFILE_ENRICH_STORE": None, "PROFILE_ENRICH_DATABASE": None}
    return CliRunner(env=variables).invoke(cli, [*command, *map(str, arguments)])


def report(result: Result, code: int = 0) -> dict[str, Any]:
    assert result.exit_code == code, result.stderr
    return dict(json.loads(result.stdout))


def in_csv(folder: Path) -> list[object]:
    (folder / "ids.csv").write_text("name,id\nA,01\nB,02\nC,none\nD,\n")
    return ["--ids", folder / "ids.csv"]


def in_lines(folder: Path) -> list[object]:
    (folder / "lookups.log").write_text("01\n02\n\nnone\n")
    return ["--ids", folder / "lookups.log"]


def in_jsonl(folder: Path) -> list[object]:
    (folder / "ids.jsonl").write_text('{"id": "01"}\n{"id": "02"}\n{"id": "none"}\n')
    return ["--ids", folder / "ids.jsonl"]


def in_sql(folder: Path) -> list[object]:
    with sqlite3.connect(folder / "crm.db") as crm:
        crm.execute("CREATE TABLE users (id TEXT)")
        crm.executemany("INSERT INTO users VALUES (?)", [("01",), ("02",), ("none",)])
    crm.close()
    return ["--sql", "SELECT id FROM users", "--url", f"sqlite:///{folder / 'crm.db'}"]


@pytest.mark.parametrize("ids", [in_csv, in_lines, in_jsonl, in_sql])
def test_R5_ids_come_from_a_file_a_log_or_a_query(ids: Any, vendor: VendorServer, tmp_path: Path) -> None:
    mirror = ["--mirror", tmp_path / "users.mirror", *ids(tmp_path)]
    assert report(run(vendor, *mirror)) == {"found": 2, "missing": 1, "fresh": 0, "failed": 0}
    asked = vendor.call_count
    assert report(run(vendor, *mirror)) == {"found": 0, "missing": 0, "fresh": 3, "failed": 0}
    assert vendor.call_count == asked
    with MirrorStore(tmp_path / "users.mirror") as store:
        assert store.collection("Users").id == vendor.entity_id
        found = store.get("Users", "01")
        assert found is not None
        assert found.attributes["n"] == "1"


def test_R5_an_amperity_index_is_paged_through(vendor: VendorServer, tmp_path: Path) -> None:
    mirror = ["--mirror", tmp_path / "users.mirror"]
    assert report(run(vendor, *mirror, kind="amperity"))["found"] == 6
    with MirrorStore(tmp_path / "users.mirror") as store:
        (users,) = store.collections()
        assert (users.index_id, users.rows) == (vendor.index_id, 6)
    assert report(run(vendor, *mirror, "--compare", kind="amperity"))["same"] == 6
    vendor.profiles["01"] = {"tier": "a planted value", "n": "1"}
    differs = run(vendor, *mirror, "--compare", kind="amperity")
    assert report(differs, 1)["attributes"] == {"tier": 1}


def test_R5_what_could_not_be_asked_for_is_said_and_asked_for_by_the_next_run(
    vendor: VendorServer, tmp_path: Path
) -> None:
    mirror = ["--mirror", tmp_path / "users.mirror", *in_lines(tmp_path)]
    vendor.always(faults.ServerError(), match="record")
    failed = run(vendor, *mirror, "--timeout", "0.3")
    assert report(failed, 3)["failed"] == 3
    assert "run it again" in failed.stderr
    vendor.heal()
    assert report(run(vendor, *mirror))["found"] == 2


def test_R6_differences_are_counted_by_attribute_and_show_no_value(vendor: VendorServer, tmp_path: Path) -> None:
    mirror = ["--mirror", tmp_path / "users.mirror", *in_lines(tmp_path)]
    report(run(vendor, *mirror))
    assert report(run(vendor, *mirror, "--compare"))["same"] == 3
    vendor.profiles["01"] = {"tier": "a planted value", "n": 1}
    del vendor.profiles["02"]
    differs = run(vendor, *mirror, "--compare")
    found = report(differs, 1)
    assert (found["different"], found["only_store"], found["attributes"]) == (1, 1, {"tier": 1, "n": 1})
    assert found["types"] == {"n": 1}
    assert not re.search(r"a planted value|(?<![\d.])0[12](?!\d)", differs.output)  # it holds seconds, too


def test_R6_a_store_built_from_the_warehouse_is_compared_too(vendor: VendorServer, tmp_path: Path) -> None:
    rows = [{"id": key, **value} for key, value in PEOPLE.items()]
    build_store(tmp_path / "s", [CollectionSpec("Users", rows)])
    (tmp_path / "ids").write_text("\n".join(PEOPLE))
    compared = run(vendor, "--compare", "--store", tmp_path / "s", "--ids", tmp_path / "ids", "--rate", "1000/s")
    assert report(compared)["same"] == 6


def test_R5_a_refused_key_ends_it_at_once(vendor: VendorServer, tmp_path: Path) -> None:
    mirror = ["--mirror", tmp_path / "users.mirror", *in_lines(tmp_path)]
    report(run(vendor, *mirror))
    (tmp_path / "lookups.log").write_text("".join(f"x{n}\n" for n in range(500)))
    asked = vendor.call_count
    refused = run(vendor, *mirror, key="another-key")
    assert refused.exit_code == 2
    assert vendor.call_count - asked < 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ids", "x"], "name the mirror: --mirror FILE"),
        (["--mirror", "m"], "give their ids with --ids FILE"),
        (["--mirror", "m", "--ids", "x", "--sql", "SELECT 1"], "contradict"),
        (["--mirror", "m", "--sql", "SELECT 1"], "PROFILE_ENRICH_SQL_URL"),
        (["--mirror", "m", "--ids", "x", "--compare"], "there is no mirror m"),
        (["--ids", "x", "--compare"], "name what to compare"),
        (["--mirror", "m", "--ids", "gone.log"], "gone.log cannot be read"),
    ],
)
def test_what_does_not_fit_is_said_in_flags(
    arguments: list[str], message: str, vendor: VendorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = run(vendor, *arguments)
    assert failed.exit_code == 2
    assert message in failed.stderr
