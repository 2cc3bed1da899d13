"""The README and three pages are followed to the letter: files written, commands typed, what they print compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from profile_enrich import ProfileMiddleware
from profile_enrich.testing import VendorServer

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


def test_start_in_five_minutes(tmp_path: Path) -> None:
    with Reader("start.md", tmp_path).at_work() as reader:
        page = f"http://127.0.0.1:{reader.ports['8000']}/"
        reader.stop("8787")
        assert reader.type(f"curl -s -b user=u2 {page}") == "Hello Bo, silver\n"  # was there a moment ago
        assert reader.type(f"curl -s -b user=u1 {page}") == "Hello there, guest\n"
    assert sum(command.startswith("uvicorn") for command in reader.typed) == 3


def test_moving_off_the_hosted_census_profile_api(tmp_path: Path) -> None:
    with VendorServer(
        {id: {"user_id": id, **each} for id, each in PEOPLE.items()}, key=KEY, id_column="user_id"
    ) as hosted:
        before = {"PROFILE_ENRICH_API_KEY": KEY, "PROFILE_ENRICH_BASE_URL": hosted.base_url}
        with Reader("moving-from-census.md", tmp_path, before).at_work() as reader:
            own, key = reader.environment["PROFILE_ENRICH_BASE_URL"], reader.environment["PROFILE_ENRICH_API_KEY"]
            assert (own, key) != (before["PROFILE_ENRICH_BASE_URL"], before["PROFILE_ENRICH_API_KEY"])
            for id in PEOPLE:
                answers = [
                    httpx.get(
                        f"{base}/entities/{entity}/record",
                        params={"record_id": id},
                        headers={"Authorization": f"Bearer {secret}"},
                    ).json()
                    for base, entity, secret in (
                        (hosted.base_url, hosted.entity_id, KEY),
                        (own, 1, f"secret-token:{key}"),
                    )
                ]
                assert answers[0] == answers[1]
        asked = [call.key for call in hosted.calls if "record" in call.path]
    # The program of step 1 once, the ids of step 1, and the two requests above: everything later went to the new one.
    assert sorted(str(key) for key in asked) == ["478060", "478060", "478060", "478061", "478061", "999999"]
    assert reader.typed.count("python ask.py") == 2


def test_asking_with_curl_key_by_key(tmp_path: Path) -> None:
    with Reader("curl.md", tmp_path).at_work() as reader:
        secrets = {reader.environment[name] for name in ("SHOP_KEY", "PARTNER_KEY", "NEW_KEY", "ADMIN_KEY")}
        assert len(secrets) == 4
        stored = (tmp_path / "profiles.store.keys.json").read_text() + (tmp_path / "8787.log").read_text()
        assert not any(secret in stored for secret in secrets)
    assert sum("curl " in command for command in reader.typed) == 19
