"""The entities page: its headers, and its use in Chromium."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from profile_enrich.server import ApiKey, FieldScope, ProfileAPI
from profile_enrich.server.process.sockets import on_loopback
from tests.examples.browser import browser, needs_browser

from .helpers import KEYS, LIMITED, SECRET, api, ask, bearer, build, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PARTNER = "the-secret-of-the-partner-key"
SCOPE = FieldScope(show=frozenset({"id", "tier"}))


def with_page(path: Path) -> ProfileAPI:
    partner = ApiKey.from_secret(PARTNER, workspace="acme", id="partner", fields={"Users": SCOPE})
    refreshing = {"every": 900.0, "running": False, "age": 120.0, "last_error": "column 'tier' is gone", "failures": 2}
    return api(path, keys=[*KEYS, partner], page=True, refreshing=lambda: refreshing)


def test_the_page_is_there_only_when_wanted(tmp_path: Path) -> None:
    path = build(tmp_path)
    on, off = with_page(path), api(path)
    for target in ("/", "/page.js", "/page.css"):
        assert ask(off, target).status == 404
        answer = ask(on, target)
        assert answer.status == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert ask(on, target, method="POST").status == 405
    page = ask(on, "/").body.decode()
    assert not re.search(r"style=|<style|onclick=|<script>", page)
    assert "http" not in page  # nothing is loaded from elsewhere
    mounted = ask(on, "/profiles/", root_path='/profiles"><script>').body.decode()
    assert "<script>" not in mounted.replace('<script src="', "")
    assert 'href="/profiles/page.css"' in ask(on, "/profiles/", root_path="/profiles").body.decode()


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("profiles.example", False)],
)
def test_it_is_on_by_default_on_this_machine_alone(host: str, alone: bool) -> None:
    assert on_loopback(host) is alone


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture
def url(tmp_path: Path) -> Generator[str]:
    with served(with_page(build(tmp_path))) as url:
        yield url


def opened(chromium: Browser, url: str, key: str) -> tuple[Page, list[str]]:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(url)
    problems[:] = [each for each in problems if "401" not in each]  # the first request shows if a key is required
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Open").click()
    page.get_by_role("heading", name="Entities and indexes").wait_for()
    return page, problems


@pytest.mark.long
@needs_browser
def test_a_walk_through_the_page(chromium: Browser, url: str) -> None:
    page, problems = opened(chromium, url, SECRET)
    text = page.locator("main").inner_text()
    for shown in ("Users", "Orders", "Wide", "People", "62", "tier, email", "column 'tier' is gone", "/api/indexes/"):
        assert shown in text
    # Look a record up, in both formats, with the request as code.
    page.get_by_label("Id", exact=True).fill("u1")
    page.get_by_role("button", name="Look up").click()
    page.get_by_text(re.compile(r"200 in \d")).wait_for()
    assert '"email": "u1@x.example"' in page.get_by_label("Answer", exact=True).inner_text()
    for language, mark in (("curl", "curl \\"), ("python", "httpx.get("), ("javascript", "await fetch(")):
        page.get_by_label("Language").select_option(language)
        code = page.locator("#snippet").inner_text()
        assert mark in code
        assert SECRET not in code
    page.get_by_label("Format").select_option("amperity")
    page.get_by_role("button", name="Look up").click()
    page.get_by_label("Answer", exact=True).get_by_text("attributes").wait_for()
    assert "amperity-tenant" in page.locator("#snippet").inner_text()
    # Filter, with the total.
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("Column", exact=True).select_option("tier")
    page.get_by_role("button", name="Count and show").click()  # a condition without a value is not sent
    assert page.evaluate("document.activeElement.validity.valueMissing")
    assert page.locator("#filter-url").inner_text() == ""
    page.get_by_label("Value").fill("gold")
    page.get_by_role("button", name="Count and show").click()
    page.get_by_text(re.compile("30 of 62 profiles")).wait_for()
    # The charts, and the Postman collection.
    page.get_by_role("img", name=re.compile("Requests by kind: .*census.record 1")).wait_for(timeout=10_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Postman collection").click()
    collection = json.loads(Path(download.value.path()).read_text())
    assert collection["variable"][0] == {"key": "baseUrl", "value": url, "type": "string"}
    # The key is only in memory.
    held = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
    assert SECRET not in held + page.content() + page.get_by_label("API key").input_value()
    page.reload()
    page.get_by_role("button", name="Open").wait_for()
    assert not page.get_by_role("heading", name="Entities and indexes").is_visible()
    assert [each for each in problems if "401" not in each] == []
    page.close()


@pytest.mark.long
@needs_browser
def test_P7_the_page_shows_the_scope_of_the_key(chromium: Browser, url: str) -> None:
    page, _ = opened(chromium, url, PARTNER)
    text = page.locator("main").inner_text()
    assert "Users" in text
    assert not [hidden for hidden in ("Orders", "Wide", "email", "column 'tier'") if hidden in text]
    page.get_by_label("API key").fill("not the key of anybody")
    page.get_by_role("button", name="Open").click()
    page.get_by_text("This key is not valid.").wait_for()
    assert "Users" not in page.locator("main").inner_text()
    page.close()


@needs_browser
@pytest.mark.long
def test_it_fits_and_is_accessible(chromium: Browser, url: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, _ = opened(chromium, url, SECRET)
    page.get_by_label("Id", exact=True).fill("u1")
    page.get_by_role("button", name="Look up").click()
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("Value").fill("gold")
    page.get_by_role("button", name="Count and show").click()
    page.get_by_text(re.compile("profiles, in")).wait_for()
    page.wait_for_timeout(3500)  # a second sample, so that all charts are drawn
    for width, scheme in itertools.product((390, 1280), SCHEMES):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#snippet").evaluate("each => each.scrollWidth <= each.clientWidth")
        if directory := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{directory}/page-{width}-{scheme}.png", full_page=True)
        violations = Axe().run(page).response["violations"]
        found = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations]
        assert found == [], (width, scheme)
    page.close()


def test_the_status_names_the_workspace(tmp_path: Path) -> None:
    app = with_page(build(tmp_path))
    assert ask(app, "/status", headers=bearer(LIMITED)).json["workspace"] == "acme"
