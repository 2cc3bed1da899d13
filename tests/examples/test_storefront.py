"""The storefront, as people use it: both processes of the demo, walked through over HTTP and in a browser."""

from __future__ import annotations

import contextlib
import html
import json
import re
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from examples import demo
from examples.storefront.featured import FEATURED
from profile_enrich.server import ApiKey, ProfileAPI
from profile_enrich.store import CollectionSpec, build_store

from ..server.helpers import served
from .browser import browser, needs_browser
from .shop import Page, Shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext
    from playwright.sync_api import Page as Tab

FAMILY, SINGLE, COUPLE = "2280", "1740", "1062"
QUICK = 5.0
"""Seconds for any page, whatever happens to the Profile API. It takes some 10 ms; the rest is for a busy machine."""


@pytest.fixture(scope="module")
def shop() -> Generator[Shop]:
    with Shop({"STOREFRONT_TTL": "600", "STOREFRONT_STALE_TTL": "600"}).running() as running:
        yield running


def stored(page: Page) -> dict[str, object]:
    """The profile as the account page shows it."""
    found = re.search(r"<pre[^>]*>(.*?)</pre>", page.html, re.DOTALL)
    assert found is not None
    profile: dict[str, object] = json.loads(html.unescape(found[1]))
    return profile


# --- personal pages ---------------------------------------------------------------------------------------------------


def test_anonymous_visitors_get_a_good_page_and_nobody_is_looked_up(shop: Shop) -> None:
    before = shop.records_asked()
    with shop.visitor() as visitor:
        page = visitor.get()
        assert page.status_code == 200
        assert "Bestsellers" in page.text
        assert "Welcome back" not in page.text
        assert len(page.products) == 12
        assert page.figure("status") == "skipped"
        assert visitor.get("/account").response.url.path == "/sign-in"
    assert shop.records_asked() == before


def test_two_households_in_two_sessions_each_see_only_their_own(shop: Shop) -> None:
    with shop.visitor(FAMILY) as family, shop.visitor(SINGLE) as single:
        for _ in range(3):
            for visitor, own, other in ((family, FAMILY, SINGLE), (single, SINGLE, FAMILY)):
                page = visitor.get()
                assert f"Welcome back, Household {own}" in page.text
                assert other not in page.text
                profile = stored(visitor.get("/account"))
                assert profile["household_id"] == own
        assert "For the smallest in the house" in family.get().text
        assert "because more of your shopping goes on Baby than in most households" in family.get().text
        assert "Picked this morning" in single.get().text
        assert family.get().products != single.get().products


def test_the_page_is_made_of_the_profile_and_says_why(shop: Shop) -> None:
    with shop.visitor(FAMILY) as visitor:
        profile = stored(visitor.get("/account"))
        page = visitor.get()
        assert page.products[:6] == profile["favourite_products"][:6]  # type: ignore[index]  # a list in the data
        assert "because you buy" in page.text
        assert "because there are children in your household" in page.text
        assert "sent to you" in page.text
        assert "Platinum member" in page.text
        assert "One of your regulars" in visitor.get(f"/product/{page.products[0]}").text


def test_departments_and_products_are_personal_and_say_why(shop: Shop) -> None:
    with shop.visitor(SINGLE) as visitor, shop.visitor() as anonymous:
        for path in ("/department/snacks", "/product/995242"):
            page, general = visitor.get(path), anonymous.get(path)
            assert "of your shopping." in page.text
            assert "of your shopping." not in general.text
            assert page.html.count('class="why"') > general.html.count('class="why"')
        assert visitor.get("/department/snacks").products != anonymous.get("/department/snacks").products
        assert "because you shop in Snacks" in visitor.get("/department/snacks").text
        assert "You spent" not in anonymous.get("/department/snacks").text
        assert "Your coupon" not in anonymous.get("/product/995242").text


def test_the_strip_lists_the_attributes_that_the_page_used(shop: Shop) -> None:
    with shop.visitor(SINGLE) as visitor, shop.visitor() as anonymous:
        assert "favourite_products" in visitor.get("/department/snacks").figure("used")
        assert visitor.get("/sign-in").figure("used") == "tier"
        assert re.search(r" and \d+ more$", visitor.get("/account").figure("used"))
        assert anonymous.get().figure("used") == ""


def test_every_coupon_says_what_it_takes_off_and_why_it_is_shown(shop: Shop) -> None:
    for household in (None, SINGLE, FAMILY):
        with shop.visitor(household) as visitor:
            offers = re.findall(r'<li class="offer .*?</li>', visitor.get().html, re.DOTALL)
            assert len(offers) == 3
            for offer in offers:
                assert 'class="why">because' in offer
                assert re.search(r"(off|discount on) one (of \d+ )?products?, until", offer)


def test_one_browser_two_households_one_after_the_other(shop: Shop) -> None:
    with shop.visitor(FAMILY) as visitor:
        assert FAMILY in visitor.get().text
        visitor.sign_in(COUPLE)
        page = visitor.get()
        assert "Welcome back, Household 1062" in page.text
        assert FAMILY not in page.text
        assert "A freezer full of good evenings" in page.text


def test_signing_out_ends_it(shop: Shop) -> None:
    with shop.visitor(FAMILY) as visitor:
        page = visitor.post("/sign-out")
        assert page.status_code == 200
        assert FAMILY not in page.text
        assert page.figure("status") == "skipped"
        assert FAMILY not in visitor.get("/department/baby").text


def test_without_consent_nobody_is_looked_up_and_nothing_is_kept(shop: Shop) -> None:
    with shop.visitor("588") as visitor:
        assert "Welcome back" in visitor.get().text
        before = shop.records_asked()
        page = visitor.post("/account/consent", consent="no")
        assert "you get the page that everybody gets" in page.text
        assert page.figure("status") == "skipped"
        assert "<pre" not in page.html
        for path in ("/", "/department/deli", "/product/1082185", "/account"):
            assert visitor.get(path).figure("status") == "skipped"
        assert "Bestsellers" in visitor.get().text
        assert visitor.post("/profile/refresh", next="/").figure("status") == "skipped"
        assert shop.records_asked() == before
        # The withdrawal removed the profile from the cache: after new consent the Profile API is called again.
        assert visitor.post("/account/consent", consent="yes").figure("status") == "miss"
        assert shop.records_asked() == before + 1


# --- how often the Profile API is asked -----------------------------------------------------------------------------


@pytest.mark.long
def test_one_upstream_call_a_household_a_ttl_however_many_pages(shop: Shop) -> None:
    before = shop.records_asked()
    with shop.visitor("67") as one, shop.visitor("67") as two, shop.visitor("412") as other:
        for _ in range(5):
            for path in ("/", "/department/snacks", "/product/995242", "/account"):
                for visitor in (one, two, other):
                    page = visitor.get(path)
                    assert page.status_code == 200
                    assert page.figure("status") == "hit"
    assert shop.records_asked() == before + 2


def test_the_buttons_drop_the_profile_and_fetch_it_anew(shop: Shop) -> None:
    with shop.visitor("2260") as visitor:
        before = shop.records_asked()
        page = visitor.post("/profile/drop", next="/department/pets")
        assert page.response.url.path == "/department/pets"
        assert page.figure("status") == "miss"
        assert shop.records_asked() == before + 1
        page = visitor.post("/profile/refresh", next="/account")
        assert page.response.url.path == "/account"
        assert page.figure("status") == "hit"
        assert page.figure("age") == "0 s"
        assert shop.records_asked() == before + 2
        assert "Fetched anew" in page.text
        assert "Fetched anew" not in visitor.get("/account").text


# --- changed profiles -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_page_changes_after_a_put_though_profiles_are_kept_for_an_hour(tmp_path: Path) -> None:
    """Profiles are cached for an hour here; the shop learns of changes by the change feed."""
    build_store(tmp_path / "s", [CollectionSpec("Households", demo.HOUSEHOLDS, key="household_id")])
    key, secret = ApiKey.generate(admin=True)
    api = ProfileAPI(tmp_path / "s", keys=[key])
    settings = {"STOREFRONT_TTL": "3600", "STOREFRONT_STALE_TTL": "3600", "STOREFRONT_FOLLOW_CHANGES": "1"}
    with served(api) as url, contextlib.ExitStack() as stack:
        shop = Shop(settings, api_port=int(url.rpartition(":")[2]), key=secret)
        visitor = stack.enter_context(stack.enter_context(shop.running(api=False)).visitor(FAMILY))
        bystander = stack.enter_context(shop.visitor(SINGLE))
        for each in (visitor, bystander):  # until the feed is there, and what was loaded before it was loaded again
            each.wait_for(lambda page: page.figure("status") == "hit" and page.figure("lookups") != "1")
        time.sleep(0.5)
        record = f"{url}/api/v1/entities/1/record?record_id={FAMILY}"
        allowed = {"authorization": f"Bearer {secret}"}
        profile = httpx.get(record, headers=allowed).json()["data"]
        for name in ("Ada and Bo", "Ada alone"):
            assert name not in visitor.get().text
            assert httpx.put(record, headers=allowed, json={**profile, "display_name": name}).status_code == 200
            visitor.wait_for(lambda page, name=name: f"Welcome back, {name}" in page.text)  # type: ignore[misc]
        assert bystander.get().figure("status") == "hit"  # whose record was not written


# --- the Profile API stops ------------------------------------------------------------------------------------------


@pytest.mark.long
def test_pages_keep_coming_while_the_profile_api_is_down() -> None:
    settings = {"STOREFRONT_TTL": "0.6", "STOREFRONT_STALE_TTL": "1.5", "STOREFRONT_BUDGET": "0.05"}
    with Shop(settings).running() as shop, shop.visitor(FAMILY) as visitor:
        visitor.wait_for(lambda page: "Welcome back" in page.text)
        shop.api.kill()
        slowest = 0.0

        def is_now(*statuses: str) -> Page:
            def look(page: Page) -> bool:
                nonlocal slowest
                slowest = max(slowest, page.seconds)
                return page.figure("status") in statuses

            return visitor.wait_for(look)

        page = is_now("stale")
        assert "Welcome back, Household 2280" in page.text
        page = is_now("error", "timeout")
        assert "Bestsellers" in page.text
        assert "Your profile is not available now" in page.text
        for path in ("/department/baby", "/product/995242", "/account", "/sign-in"):
            assert visitor.get(path).status_code == 200
        assert "does not answer now" in visitor.post("/profile/refresh", next="/").text
        assert visitor.sign_in(SINGLE).status_code == 200  # whether the household exists cannot be determined now
        assert visitor.sign_in(FAMILY).status_code == 200
        assert slowest < QUICK

        shop.restart_api()
        page = visitor.wait_for(lambda page: "Welcome back" in page.text)
        assert page.figure("status") in ("miss", "hit", "stale")
        assert slowest < QUICK


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["9999", "0", "2500000"])
def test_an_unknown_number_gets_a_friendly_answer(shop: Shop, number: str) -> None:
    with shop.visitor() as visitor:
        page = visitor.sign_in(number)
        assert page.status_code == 422
        assert ("We know no household" in page.text) == (len(number) <= 6)
        assert visitor.get().figure("status") == "skipped"


@pytest.mark.parametrize(
    "typed", ["", "abc", "-1", "1.5", "٣", "1 OR 1=1", "<script>alert(1)</script>", "7" * 4096, "\x00"]
)
def test_what_is_no_number_gets_a_friendly_answer(shop: Shop, typed: str) -> None:
    with shop.visitor() as visitor:
        page = visitor.sign_in(typed)
        assert page.status_code == 422
        assert 'role="alert"' in page.html
        assert "<script" not in page.html


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/department/nowhere", "/product/1", "/product/..%2f..%2fetc", "/department/%00", "/static/../app.py"],
)
def test_what_is_not_there_is_said_kindly(shop: Shop, path: str) -> None:
    with shop.visitor(FAMILY) as visitor:
        page = visitor.get(path)
        assert page.status_code == 404
        assert page.response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("query", ["page=0", "page=-1", "page=999999", "page=x", "shelf=nowhere", "shelf=%3Cscript%3E"])
def test_odd_queries_show_the_department(shop: Shop, query: str) -> None:
    with shop.visitor() as visitor:
        page = visitor.get(f"/department/snacks?{query}")
        assert page.status_code == 200
        assert page.products
        assert "<script" not in page.html


# --- safety ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/account/consent", "/profile/drop", "/profile/refresh"])
def test_no_other_site_can_send_a_form(shop: Shop, path: str) -> None:
    with shop.visitor(FAMILY) as visitor:
        for headers in (
            {"origin": "https://elsewhere.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
        ):
            answer = visitor.client.post(path, data={"household": "1", "consent": "no"}, headers=headers)
            assert answer.status_code == 403
        assert f"Household {FAMILY}" in visitor.get().text


@pytest.mark.parametrize(
    "target", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "", "x"]
)
def test_no_form_leads_away_from_the_shop(shop: Shop, target: str) -> None:
    with shop.visitor(FAMILY) as visitor:
        page = visitor.post("/profile/drop", next=target)
        assert str(page.response.url) == f"{shop.url}/"


def test_pages_say_how_they_may_be_kept_and_what_they_may_load(shop: Shop) -> None:
    with shop.visitor(FAMILY) as visitor:
        page = visitor.get()
        assert page.response.headers["cache-control"] == "private"
        assert "cookie" in page.response.headers["vary"].lower()
        policy = page.response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        for path in ("/", "/account", "/sign-in", "/department/pets", "/product/995242"):
            text = visitor.get(path).html
            assert "<script" not in text
            assert not re.search(r"\sstyle=|\son\w+=", text)
        static = visitor.get("/static/shop.css").response
        assert "vary" not in {name.lower() for name in static.headers} or "cookie" not in static.headers["vary"].lower()
        assert "cache-control" not in static.headers
    session = visitor.client.cookies.jar
    assert all("samesite" in {name.lower() for name in cookie._rest} for cookie in session)  # type: ignore[attr-defined]  # the only place where http.cookiejar keeps it


def test_every_link_and_picture_of_the_shop_leads_somewhere(shop: Shop) -> None:
    with shop.visitor(FAMILY) as visitor:
        home = visitor.get()
        departments = [link for link in home.links if link.startswith("/department/")]
        assert len(set(departments)) == 15
        pages = [home, *(visitor.get(link) for link in departments), visitor.get("/sign-in")]
        assert {page.status_code for page in pages} == {200}
        for product in home.products:
            assert visitor.get(f"/product/{product}").status_code == 200
        pictures = {picture for page in pages for picture in re.findall(r'src="([^"]+)"', page.html)}
        assert len(pictures) > 60
        for picture in pictures:
            answer = visitor.get(picture)
            assert answer.status_code == 200
            assert answer.response.headers["content-type"].startswith("image/svg+xml")


# --- in a browser ---------------------------------------------------------------------------------------------------


def sign_in(context: BrowserContext, url: str, household: str) -> Tab:
    tab = context.new_page()
    tab.goto(f"{url}/sign-in")
    tab.click(f'button[value="{household}"]')
    tab.wait_for_url(f"{url}/")
    return tab


@needs_browser
@pytest.mark.long
def test_the_walk_in_a_browser_without_javascript(shop: Shop) -> None:
    with browser() as chromium:
        walk(shop, chromium, width=390)
        for width in (360, 768, 1280):
            context = chromium.new_context(viewport={"width": width, "height": 844}, java_script_enabled=False)
            tab = sign_in(context, shop.url, FAMILY)
            for path in ("/", "/account", "/department/pantry", "/product/995242"):
                tab.goto(f"{shop.url}{path}")
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
            context.close()


def walk(shop: Shop, chromium: Browser, width: int) -> None:
    """Visits the shop as an anonymous visitor and as two households side by side."""

    def somebody() -> BrowserContext:
        return chromium.new_context(viewport={"width": width, "height": 844}, java_script_enabled=False)

    complaints: list[str] = []
    tab = somebody().new_page()
    tab.on("requestfailed", lambda request: complaints.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text) if "422" not in message.text else None)
    tab.goto(shop.url)
    assert "Bestsellers" in tab.inner_text("main")
    tab.click("text=Sign in for a page of your own")
    assert len(tab.query_selector_all(".person")) == len(FEATURED)
    tab.fill("#household", "9999")
    tab.click(".any button")
    assert "We know no household 9999" in tab.inner_text("[role=alert]")

    family, single = sign_in(somebody(), shop.url, FAMILY), sign_in(somebody(), shop.url, SINGLE)
    for own, other, theirs in ((family, SINGLE, FAMILY), (single, FAMILY, SINGLE)):
        own.reload()
        text = own.inner_text("body")
        assert f"Household {theirs}" in text
        assert other not in text
        assert own.inner_text("[data-strip=status]") == "hit"
        assert own.evaluate("document.documentElement.scrollWidth") <= width

    family.click(".chip")
    assert family.get_attribute(".switch", "aria-checked") == "true"
    family.click(".switch")
    assert family.get_attribute(".switch", "aria-checked") == "false"
    assert family.inner_text("[data-strip=status]") == "skipped"
    family.click(".logo")
    assert "Bestsellers" in family.inner_text("main")
    single.click(".row .card a >> nth=0")
    assert "One of your regulars" in single.inner_text("main")
    single.click("text=Drop from cache")
    assert single.inner_text("[data-strip=status]") == "miss"
    assert "/product/" in single.url
    single.click("text=Sign out")
    assert SINGLE not in single.inner_text("body")
    assert complaints == []
