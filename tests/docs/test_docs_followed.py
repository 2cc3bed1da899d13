"""The README and three pages, followed literally: files are written, commands run, and outputs compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from profile_enrich import ProfileMiddleware
from profile_enrich.testing import VendorServer, faults

from .helpers import ROOT, Reader, code_of

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("bash") is None, reason="the pages use bash and curl"
)

PEOPLE = {
    "478060": {"email": "ann@shop.example", "tier": "gold", "ltv": 612.5, "zip": "02134", "vip": True, "city": None},
    "478061": {
        "email": "bo@shop.example",
        "tier": "silver",
        "ltv": 0.5,
        "zip": "10115",
        "vip": False,
        "city": "Berlin",
    },
}
KEY = "secret-token:the-hosted-key"


def test_the_readme(tmp_path: Path) -> None:
    application = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n", 1)[1].split("```\n", 1)[0]
    (tmp_path / "app.py").write_text(application, encoding="utf-8")
    (tmp_path / "users.csv").write_text("user_id,email,tier\n478060,a@b.example,gold\n", encoding="utf-8")
    with Reader(ROOT / "README.md", tmp_path).at_work() as reader:
        assert (tmp_path / "profiles.csv").read_text(encoding="utf-8").endswith("478060,a@b.example,gold\n")
    assert sum(command.startswith(("uvicorn", "profile-enrich")) for command in reader.typed) == 5


def test_the_readmes_fastapi_routes_answer() -> None:
    code = code_of(ROOT / "README.md")
    with TestClient(code["api"]) as nobody:
        assert nobody.get("/offers").json() == {"tier": "guest"}
        assert nobody.get("/account").status_code == 401
    signed_in = FastAPI(routes=code["api"].routes)
    signed_in.add_middleware(ProfileMiddleware, client=code["profiles"], identify=lambda connection: "478060")
    with TestClient(signed_in) as ann:
        assert ann.get("/offers").json() == {"tier": "gold"}
        assert ann.get("/account").json() == {"first_name": "Ann", "tier": "gold"}


@pytest.mark.long
def test_start_in_five_minutes(tmp_path: Path) -> None:
    with Reader("start.md", tmp_path).at_work() as reader:
        page = f"http://127.0.0.1:{reader.ports['8000']}/"
        reader.stop("8787")
        assert reader.type(f"curl -s -b user=u2 {page}") == "Hello Bo, silver\n"  # existed a moment ago
        assert reader.type(f"curl -s -b user=u1 {page}") == "Hello there, guest\n"
    assert sum(command.startswith("uvicorn") for command in reader.typed) == 3


class Mover(Reader):
    """A reader whose vendor fails before the comparison, and shuts down before the mirror runs alone."""

    hosted: VendorServer
    alone: dict[str, object]

    def type(self, command: str, output: list[str] | None = None) -> str:
        if "--compare" in command:  # failed calls are repeated
            self.hosted.script(faults.Reset(), faults.ServerError(), faults.Garbage(), match="record")
        elif command == "python ask.py" and command in self.typed:  # switched: from here on, the vendor only fails
            self.hosted.always(faults.ServerError())
        elif command == "profile-enrich serve --mirror users.mirror":
            self.hosted.close()
        elif command.startswith("profile-enrich index build"):
            url = f"{self.environment['PROFILE_ENRICH_BASE_URL']}/entities/{self.hosted.entity_id}/record"
            key = f"secret-token:{self.environment['WEBSITE_KEY']}"
            self.alone = {
                id: httpx.get(url, params={"record_id": id}, headers={"Authorization": f"Bearer {key}"}).json()
                for id in (*PEOPLE, "478062")
            }
        return super().type(command, output)


@pytest.mark.long
def test_R7_moving_off_the_hosted_census_profile_api(tmp_path: Path) -> None:
    records = {id: {"user_id": id, **each} for id, each in PEOPLE.items()}
    with VendorServer(records, key=KEY, id_column="user_id") as hosted:
        names = ("PROFILE_ENRICH_BASE_URL", "PROFILE_ENRICH_UPSTREAM_URL")
        before = {"PROFILE_ENRICH_API_KEY": KEY, **dict.fromkeys(names, hosted.base_url)}
        reader = Mover("moving-from-census.md", tmp_path, before)
        reader.hosted = hosted
        with reader.at_work():
            assert {id: {"data": each} for id, each in records.items()}.items() <= reader.alone.items()
            assert "Hamburg" in str(reader.alone["478062"])  # never requested before, from the warehouse
    assert reader.typed.count("python ask.py") == 4


@pytest.mark.long
def test_asking_with_curl_key_by_key(tmp_path: Path) -> None:
    with Reader("curl.md", tmp_path).at_work() as reader:
        secrets = {reader.environment[name] for name in ("SHOP_KEY", "PARTNER_KEY", "NEW_KEY", "ADMIN_KEY")}
        assert len(secrets) == 4
        stored = (tmp_path / "profiles.store.keys.json").read_text() + (tmp_path / "8787.log").read_text()
        assert not any(secret in stored for secret in secrets)
    assert sum("curl " in command for command in reader.typed) == 19
