"""`profile-enrich serve --mirror … --upstream …`: while the vendor is running, and after it shut down."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from profile_enrich.cli.app import cli
from profile_enrich.testing import VendorServer
from tests.cli.test_database import serving


@pytest.mark.long
def test_R4_serve_a_relay_and_then_the_mirror_alone(tmp_path: Path) -> None:
    mirror = ["--mirror", str(tmp_path / "users.mirror")]
    with VendorServer(profiles={"u1": {"tier": "gold"}}, entity="Users", key="vendors-key") as vendor:
        upstream = ["--upstream", "census", "--entity", "Users", "--upstream-url", vendor.base_url]
        url = f"/api/v1/entities/{vendor.entity_id}/record?record_id="
        with serving(*mirror, *upstream, PROFILE_ENRICH_UPSTREAM_KEY="vendors-key") as relay:
            assert httpx.get(relay + url + "u1").json()["data"]["tier"] == "gold"
            assert httpx.get(relay + url + "u2").status_code == 404
            vendor.close()
            assert httpx.get(relay + url + "u1").status_code == 200
            assert httpx.get(relay + url + "u3").status_code == 503
    with serving(*mirror) as alone:
        assert httpx.get(alone + url + "u1").json()["data"]["tier"] == "gold"
        assert httpx.get(alone + url + "u3").status_code == 404


@pytest.mark.long
def test_R4_serve_a_relay_of_an_amperity_index(tmp_path: Path) -> None:
    mirror = ["--mirror", str(tmp_path / "customers.mirror")]
    with VendorServer(
        profiles={"u1": {"tier": "gold"}}, entity="Customers", key="vendors-key", tenant="acme"
    ) as vendor:
        upstream = ["--upstream", "amperity", "--entity", "Customers"]
        variables = {
            "PROFILE_ENRICH_UPSTREAM_KEY": "vendors-key",
            "PROFILE_ENRICH_UPSTREAM_URL": vendor.amperity_url,
            "PROFILE_ENRICH_UPSTREAM_TENANT": "acme",
        }
        head = {"amperity-tenant": "default", "api-version": "2025-07-31"}
        path = f"/api/indexes/{vendor.index_id}/profiles/"  # as it is at the vendor
        with serving(*mirror, *upstream, **variables) as relay:
            assert httpx.get(relay + path + "u1", headers=head).json()["attributes"]["tier"] == "gold"
            vendor.close()
            assert httpx.get(relay + path + "u1", headers=head).json()["id"] == "u1"
    with serving(*mirror) as alone:
        assert httpx.get(alone + path + "u1", headers=head).json()["attributes"]["tier"] == "gold"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--upstream", "census", "--database", "postgresql://x"], "--upstream needs --mirror"),
        (["--mirror", "m", "--upstream", "census"], "--upstream needs --entity"),
        (["--mirror", "m", "--upstream", "census", "--entity", "Users"], "PROFILE_ENRICH_UPSTREAM_KEY"),
        (["--mirror", "m", "--database", "postgresql://x"], "contradict"),
    ],
)
def test_what_does_not_fit_is_said_in_flags(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner(env={"PROFILE_ENRICH_UPSTREAM_KEY": None}).invoke(
        cli, ["serve", "--no-auth", "--port", "0", *arguments]
    )
    assert run.exit_code != 0
    assert message in run.stderr
