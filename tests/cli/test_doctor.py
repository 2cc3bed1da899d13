"""`profile-enrich doctor`: each possible fault is found and reported with its remedy."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from profile_enrich.cli.app import cli
from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.testing import VendorServer, faults
from profile_enrich.testing.vendor_dialects import Vendor

KEY = "secret-token:sk_live_4242424242"


@pytest.fixture
def vendor() -> Iterator[VendorServer]:
    with VendorServer({"u1": {"email": "ada@example.com"}}, entity="Users", key=KEY) as running:
        yield running


def doctor(env: dict[str, str], *arguments: str) -> Result:
    return CliRunner(env=env).invoke(cli, ["doctor", "--calls", "2", *arguments])


def census(vendor: VendorServer, *arguments: str, **more: str) -> Result:
    base = {"PROFILE_ENRICH_API_KEY": KEY, "PROFILE_ENRICH_BASE_URL": vendor.base_url, "PROFILE_ENRICH_ENTITY": "Users"}
    return doctor({**base, **more}, *arguments)


def amperity(vendor: VendorServer, *arguments: str, **more: str) -> Result:
    base = {
        "PROFILE_ENRICH_TOKEN": KEY,
        "PROFILE_ENRICH_TENANT": "acme",
        "PROFILE_ENRICH_BASE_URL": vendor.amperity_url,
        "PROFILE_ENRICH_INDEX": "Users",
    }
    return doctor({**base, **more}, *arguments)


def verdicts(done: Result) -> dict[str, str]:
    data: dict[str, Any] = json.loads(done.stdout)
    assert data["healthy"] is (done.exit_code == 0)
    for private in (KEY, "sk_live", "4242", "ada@example.com"):
        assert private not in done.output
    return {check["check"]: check["verdict"] for check in data["checks"]}


def test_nothing_is_wrong(vendor: VendorServer) -> None:
    done = census(vendor, "--json")
    names = ["settings", "API key", "reachable", "clock", "credentials", "entity", "latency"]
    assert verdicts(done) == dict.fromkeys(names, "ok")
    done = amperity(vendor, "--json")
    names = ["settings", "token", "reachable", "clock", "credentials", "index", "latency"]
    assert verdicts(done) == dict.fromkeys(names, "ok")
    for transport in ("httpx", "httpx2", "aiohttp"):
        assert census(vendor, "--transport", transport).exit_code == 0


def test_people_get_lines_with_what_to_do(vendor: VendorServer) -> None:
    done = census(vendor)
    assert done.exit_code == 0
    assert "      ok  entity: Users is there (id 1)" in done.stdout
    assert done.stdout.endswith("Nothing is wrong.\n")
    done = census(vendor, "--entity", "users")
    assert done.exit_code == 1
    assert "   WRONG  entity: users is not there; the key sees Users" in done.stdout
    assert "-> Did you mean Users?" in done.stdout
    assert done.stdout.endswith("1 to fix.\n")


def test_wrong_credentials(vendor: VendorServer) -> None:
    found = verdicts(census(vendor, "--json", "--api-key", "wrong"))
    assert (found["reachable"], found["credentials"], found["entity, latency"]) == ("ok", "wrong", "skipped")
    done = amperity(vendor, "--tenant", "other")
    assert (done.exit_code, "Check --tenant" in done.stdout) == (1, True)
    done = amperity(vendor, "--token", "wrong")
    assert (done.exit_code, "Make a new token" in done.stdout) == (1, True)
    own = ["--client-id", "client", "--token-url", vendor.token_url, "--client-secret"]
    done = amperity(vendor, *own, "no", PROFILE_ENRICH_TOKEN="")
    assert (done.exit_code, "credentials" in done.stdout) == (1, True)
    assert amperity(vendor, *own, "client-secret", PROFILE_ENRICH_TOKEN="").exit_code == 0
    done = doctor({})
    assert (done.exit_code, "PROFILE_ENRICH_API_KEY" in done.stdout) == (1, True)
    done = census(vendor, "--base-url", "http://example.com/api/v1")
    assert (done.exit_code, "https" in done.stdout) == (1, True)


def test_tokens_that_expire(vendor: VendorServer) -> None:
    def token(seconds: float) -> str:
        holder = Vendor(None, "", "", "", "", 0, "")
        made = holder.issue(seconds)
        vendor._vendor.tokens[made] = time.monotonic() + 3600
        return made

    for seconds, verdict in [(-500_000, "wrong"), (-3, "wrong"), (600, "warning"), (90_000, "ok"), (9_000_000, "ok")]:
        found = verdicts(amperity(vendor, "--json", "--token", token(seconds)))
        assert (found["token"], found["credentials"]) == (verdict, "ok"), seconds
    assert "expires in 104 days" in amperity(vendor, "--token", token(9_000_000)).stdout


def test_no_entity_said_not_there_or_twice(vendor: VendorServer) -> None:
    done = census(vendor, PROFILE_ENRICH_ENTITY="")
    assert (done.exit_code, "not said; the key sees Users" in done.stdout, "--entity" in done.stdout) == (1, True, True)
    assert "the key sees Users" in census(vendor, "--entity", "Cars").stdout
    assert census(vendor, "--entity", "1").exit_code == 0
    vendor.add_collection("Users", {})
    done = census(vendor)
    assert (done.exit_code, "Give the id: 1, 2." in done.stdout) == (1, True)
    vendor.always(faults.Respond(200, {"data": []}), match="/entities")
    assert "the key sees none" in census(vendor).stdout


@pytest.mark.parametrize(
    ("fault", "reachable", "advice"),
    [
        (faults.Hang(), "wrong", "--timeout"),
        (faults.Reset(), "wrong", "--base-url"),
        (faults.Truncated(), "wrong", "is not valid HTTP"),
        (faults.Redirect("https://elsewhere.example/"), "wrong", "Redirects are not followed"),
        (faults.Unavailable(), "warning", "status page"),
        (faults.RateLimited(), "ok", "try again later"),
        (faults.WrongType(), "ok", "is this the right API?"),
    ],
)
def test_an_api_that_does_not_answer_as_it_should(
    vendor: VendorServer, fault: faults.Fault, reachable: str, advice: str
) -> None:
    vendor.always(fault)
    found = verdicts(census(vendor, "--json", "--timeout", "0.5"))
    assert found["reachable"] == reachable
    assert "wrong" in found.values()
    assert advice in census(vendor, "--timeout", "0.5").stdout


def test_nobody_listens() -> None:
    env = {"PROFILE_ENRICH_API_KEY": KEY, "PROFILE_ENRICH_BASE_URL": "http://127.0.0.1:1/api/v1"}
    found = verdicts(doctor(env, "--json"))
    assert (found["reachable"], found["credentials, entity, latency"]) == ("wrong", "skipped")


@pytest.mark.parametrize(
    ("skew", "verdict", "shown"),
    [(-60, "warning", "60 seconds ahead"), (900, "wrong", "15 minutes behind"), (-90_000, "wrong", "25 hours ahead")],
)
def test_the_clock(vendor: VendorServer, skew: float, verdict: str, shown: str) -> None:
    vendor.clock_skew = skew
    assert verdicts(census(vendor, "--json"))["clock"] == verdict
    done = census(vendor)
    assert "NTP" in done.stdout
    assert shown in done.stdout or shown.replace("60", "61") in done.stdout or shown.replace("60", "59") in done.stdout


def test_an_api_without_a_date(vendor: VendorServer) -> None:
    vendor.headers["Date"] = "sometime"
    assert verdicts(census(vendor, "--json"))["clock"] == "skipped"


def test_slow_lookups_are_a_warning_and_failing_ones_are_wrong(vendor: VendorServer) -> None:
    vendor.always(faults.Latency(0.06), match="/record")
    done = census(vendor, "--json")
    assert (done.exit_code, verdicts(done)["latency"]) == (0, "warning")
    vendor.always(faults.ServerError(), match="/record")
    assert verdicts(census(vendor, "--json"))["latency"] == "wrong"
    vendor.always(faults.Respond(200, {"data": {"id": "x"}}), match="/record")
    assert verdicts(census(vendor, "--json"))["latency"] == "ok"


def test_a_store(tmp_path: Path) -> None:
    path = tmp_path / "profiles.store"
    env = {"PROFILE_ENRICH_STORE": str(path)}
    done = doctor(env)
    assert (done.exit_code, "profile-enrich serve --store" in done.stdout) == (1, True)
    build_store(path, [CollectionSpec("Users", [{"id": "u1"}], key="id"), CollectionSpec("Empty", [], key="id")])
    done = doctor(env, "--entity", "Users", "--json")
    assert verdicts(done) == dict.fromkeys(["settings", "entity", "records", "latency"], "ok")
    found = verdicts(doctor(env, "--json"))
    assert (found["entity"], found["latency"]) == ("wrong", "skipped")
