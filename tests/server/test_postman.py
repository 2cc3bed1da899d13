"""The Postman collection: its contents, and a run by Postman's own runner."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from profile_enrich.cli.app import cli
from profile_enrich.server import ApiKey, FieldScope

from .helpers import KEYS, LIMITED, SECRET, api, ask, bearer, build, served

NEWMAN = shutil.which("newman")
PARTNER = "the-secret-of-the-partner-key"
FIELDS = {"Users": FieldScope(show=frozenset({"id", "tier"}))}


def requests_of(collection: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (request["request"]["method"], request["request"]["url"]["raw"])
        for folder in collection["item"]
        for request in folder["item"]
    ]


def test_the_collection_names_what_the_key_sees(tmp_path: Path) -> None:
    app = api(build(tmp_path))
    whole = ask(app, "/postman.json", headers=bearer()).json
    assert whole["info"]["schema"].endswith("/v2.1.0/collection.json")
    assert [folder["name"] for folder in whole["item"]] == ["Server", "Users", "Orders", "Wide"]
    assert ("GET", "{{baseUrl}}/api/v1/entities/1/record?record_id={{id_1}}") in requests_of(whole)
    assert len([each for each in requests_of(whole) if "filter[tier]" in each[1]]) == 1
    limited = ask(app, "/postman.json", headers=bearer(LIMITED)).json
    assert [folder["name"] for folder in limited["item"]] == ["Server", "Users"]
    assert not re.search("Orders|Wide|entities/2|entities/3", json.dumps(limited))
    assert ask(app, "/postman.json").status == 401
    assert SECRET not in json.dumps(whole)


def test_the_command_writes_the_same(tmp_path: Path) -> None:
    path = build(tmp_path)
    done = CliRunner().invoke(cli, ["openapi", "--store", str(path), "--postman", "--server", "http://127.0.0.1:1"])
    assert done.exit_code == 0, done.output
    written = json.loads(done.stdout)
    assert written["variable"][0]["value"] == "http://127.0.0.1:1"
    served = ask(api(path), "/postman.json", headers=bearer()).json
    assert requests_of(written) == requests_of(served)


@pytest.mark.long
@pytest.mark.skipif(NEWMAN is None, reason="needs Postman's runner: npm install --global newman")
@pytest.mark.parametrize("secret", [SECRET, LIMITED, PARTNER])
def test_newman_finds_every_answer_right(tmp_path: Path, secret: str) -> None:
    partner = ApiKey.from_secret(PARTNER, workspace="acme", id="partner", fields=FIELDS)
    app = api(build(tmp_path), keys=[*KEYS, partner])
    collection = tmp_path / "collection.json"
    collection.write_text(json.dumps(ask(app, "/postman.json", headers=bearer(secret)).json), encoding="utf-8")
    report = tmp_path / "report.json"
    with served(app) as url:
        command = [
            str(NEWMAN), "run", str(collection), "--env-var", f"baseUrl={url}", "--env-var", f"apiKey={secret}",
            "--reporters", "json", "--reporter-json-export", str(report),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    run = json.loads(report.read_text(encoding="utf-8"))["run"]
    failures = [(each["source"]["name"], each["error"]["message"]) for each in run["failures"]]
    assert (done.returncode, failures) == (0, []), done.stdout + done.stderr
    assert run["stats"]["requests"]["total"] >= 10
    assert run["stats"]["assertions"]["total"] == run["stats"]["requests"]["total"]
