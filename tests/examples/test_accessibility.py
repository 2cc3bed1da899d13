"""Every page of the examples passes axe-core at phone and desktop widths, light and dark, and keeps its gaps."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Literal

import pytest

from examples.demo.control import CONTROL_VARIABLE, ControlServer
from examples.demo.launcher import Launcher
from examples.demo.process import Process

from .browser import browser, needs_browser
from .console import RunningConsole
from .shop import Shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

pytestmark = needs_browser

WIDTHS = (390, 1280)
BETWEEN = (640, 700, 900, 1000, 1100)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LONG = pytest.mark.long
"""Of each of the two applications, `make test` walks through one page; each page takes seconds."""
ANONYMOUS = [pytest.param("/", marks=LONG), pytest.param("/sign-in", marks=LONG)]
SIGNED_IN = ["/", *(pytest.param(path, marks=LONG) for path in ("/department/snacks", "/product/995242", "/account"))]
CONSOLE = [pytest.param(path, marks=LONG) for path in ("/", "/audit-log", "/tickets/7301")]
TOUCHING = """
Array.from(document.querySelectorAll("main, main section")).flatMap((parent) => {
  const boxes = Array.from(parent.children).filter((each) => each.checkVisibility()
    && each.getBoundingClientRect().height > 1 && getComputedStyle(each).backgroundColor !== "rgba(0, 0, 0, 0)");
  return boxes.slice(1).flatMap((each, place) => {
    const before = boxes[place].getBoundingClientRect(), here = each.getBoundingClientRect();
    return here.left < before.right && here.top - before.bottom < 8 ? [each.className || each.localName] : [];
  });
})
"""
"""The boxes with a background that touch the one above them."""


@pytest.fixture(scope="module")
def shop() -> Generator[Shop]:
    """With the launcher's button."""
    processes: dict[str, Process] = {}
    with ControlServer.serving(Launcher(processes)) as control:
        settings = {CONTROL_VARIABLE: str(control.path), "STOREFRONT_TTL": "600", "STOREFRONT_STALE_TTL": "600"}
        shop = Shop(settings)
        processes["api"] = shop.api
        with shop.running():
            yield shop


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningConsole]:
    with RunningConsole(tmp_path_factory.mktemp("console")).running() as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    with browser() as running:
        yield running


def check_layout(tab: Tab, width: int) -> None:
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, (tab.url, width)
    assert tab.evaluate(TOUCHING) == [], (tab.url, width)
    if tab.locator(".strip").count():
        box = tab.locator(".strip").bounding_box()
        assert box is not None
        assert box["height"] <= (130 if width == min(WIDTHS) else 170), (tab.url, width, box)
        assert tab.locator("[data-strip=lookups]").is_visible(), (tab.url, width)
        for part in tab.locator(".strip dl, .strip-what, .strip button").all():
            here = part.bounding_box()
            assert here is None or here["x"] + here["width"] <= width, (tab.url, width)


def violations(chromium: Browser, label: str, enter: Callable[[Tab], None], address: str | None = None) -> list[str]:
    """Visit an address after `enter`, and return what axe finds there in each width and scheme.

    Where `SCREENSHOTS` names a directory, each page is drawn there.

    Args:
        chromium: for a tab without cookies.
        label: begins the name of a picture.
        enter: prepares the tab.
        address: the page. Default: the one that `enter` has opened.
    """
    from axe_playwright_python.sync_playwright import Axe

    found: list[str] = []
    with chromium.new_context(reduced_motion="reduce", bypass_csp=True) as context:
        tab = context.new_page()
        enter(tab)
        if address is not None:
            tab.goto(address)
        for width in BETWEEN:
            tab.set_viewport_size({"width": width, "height": 844})
            check_layout(tab, width)
        tab.evaluate(Axe().axe_script)
        for scheme, width in itertools.product(SCHEMES, WIDTHS):
            tab.emulate_media(color_scheme=scheme)
            tab.set_viewport_size({"width": width, "height": 844})
            check_layout(tab, width)
            if directory := os.environ.get("SCREENSHOTS"):
                name = re.sub(r"\W+", "-", tab.url.split("/", 3)[3]) or "home"
                tab.screenshot(path=f"{directory}/{label}-{name}-{width}-{scheme}.png", full_page=True)
            for each in tab.evaluate("axe.run({resultTypes: ['violations']})")["violations"]:
                nodes = "; ".join(" ".join(node["target"]) for node in each["nodes"][:3])
                found.append(f"{tab.url} {width} {scheme}: {each['id']}: {nodes}")
    return found


def sign_in(shop: Shop, tab: Tab) -> None:
    tab.goto(f"{shop.url}/sign-in")
    tab.fill("#household", "1740")
    tab.click(".any button")
    tab.wait_for_url(f"{shop.url}/")


@pytest.mark.parametrize("path", ANONYMOUS)
def test_the_shop_has_no_violations_for_anonymous_visitors(chromium: Browser, shop: Shop, path: str) -> None:
    assert violations(chromium, "nobody", lambda tab: None, shop.url + path) == []


@pytest.mark.long
@pytest.mark.parametrize("path", SIGNED_IN)
def test_the_shop_has_no_violations(chromium: Browser, shop: Shop, path: str) -> None:
    assert violations(chromium, "shop", partial(sign_in, shop), shop.url + path) == []


@LONG
def test_the_active_department_is_in_sight_at_every_width(chromium: Browser, shop: Shop) -> None:
    with chromium.new_page() as tab:
        for slug, width in itertools.product(("produce", "snacks", "pets"), (*WIDTHS, 700)):
            tab.set_viewport_size({"width": width, "height": 844})
            tab.goto(f"{shop.url}/department/{slug}")
            for scrolled in (0, 300, 10_000):
                tab.locator(".departments").evaluate("(nav, left) => nav.scrollLeft = left", scrolled)
                box = tab.locator(".departments [aria-current]").bounding_box()
                assert box is not None
                assert 0 <= box["x"] <= box["x"] + box["width"] <= width, (slug, width, scrolled, box)


@LONG
@pytest.mark.parametrize("path", ["/", "/account"])
def test_the_shop_has_none_while_the_profile_api_is_down(chromium: Browser, path: str) -> None:
    with Shop().running(api=False) as shop:
        assert violations(chromium, "down", partial(sign_in, shop), shop.url + path) == []


def sign_in_to_console(console: RunningConsole, tab: Tab) -> None:
    tab.goto(f"{console.url}/sign-in")
    tab.fill("input[name=name]", "ann")
    tab.fill("input[name=password]", console.passwords["ann"])
    tab.click("main button[type=submit]")
    tab.wait_for_url(f"{console.url}/")


def find_customer(console: RunningConsole, tab: Tab) -> None:
    sign_in_to_console(console, tab)
    tab.fill("input[name=value]", "C-1001")
    tab.click("main button[type=submit]")
    tab.wait_for_url("**/profile/*")


@pytest.mark.parametrize("path", CONSOLE)
def test_the_console_has_no_violations(chromium: Browser, console: RunningConsole, path: str) -> None:
    assert violations(chromium, "console", partial(sign_in_to_console, console), console.url + path) == []


@pytest.mark.long
def test_a_profile_in_the_console_has_no_violations(chromium: Browser, console: RunningConsole) -> None:
    assert violations(chromium, "console", partial(find_customer, console)) == []


@LONG
def test_the_sign_in_page_of_the_console_has_no_violations(chromium: Browser, console: RunningConsole) -> None:
    assert violations(chromium, "console", lambda tab: None, f"{console.url}/sign-in") == []
