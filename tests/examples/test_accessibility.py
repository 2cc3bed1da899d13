"""Every page of the examples passes axe-core at phone and desktop widths, in light and in dark mode."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Literal

import pytest

from .browser import browser, needs_browser
from .console import RunningConsole
from .shop import Shop

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

pytestmark = needs_browser

WIDTHS = (390, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
ANONYMOUS = ["/", "/sign-in"]
SIGNED_IN = ["/", "/department/snacks", "/product/995242", "/account"]
CONSOLE = ["/", "/audit-log", "/tickets/7301"]


@pytest.fixture(scope="module")
def shop() -> Generator[Shop]:
    with Shop({"STOREFRONT_TTL": "600", "STOREFRONT_STALE_TTL": "600"}).running() as running:
        yield running


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningConsole]:
    with RunningConsole(tmp_path_factory.mktemp("console")).running() as running:
        yield running


def violations(enter: Callable[[Tab], None], addresses: list[str]) -> list[str]:
    """Visit each address after `enter`, and return what axe finds there in each width and scheme."""
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe().axe_script
    found: list[str] = []
    with browser() as chromium:
        context = chromium.new_context(reduced_motion="reduce", bypass_csp=True)
        tab = context.new_page()
        enter(tab)
        for address in addresses:
            tab.goto(address)
            tab.evaluate(axe)
            for scheme, width in itertools.product(SCHEMES, WIDTHS):
                tab.emulate_media(color_scheme=scheme)
                tab.set_viewport_size({"width": width, "height": 844})
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, (address, width)
                for each in tab.evaluate("axe.run({resultTypes: ['violations']})")["violations"]:
                    nodes = "; ".join(" ".join(node["target"]) for node in each["nodes"][:3])
                    found.append(f"{address} {width} {scheme}: {each['id']}: {nodes}")
        context.close()
    return found


def test_the_shop_has_no_violations(shop: Shop) -> None:
    def sign_in(tab: Tab) -> None:
        tab.goto(f"{shop.url}/sign-in")
        tab.fill("#household", "1740")
        tab.click(".any button")
        tab.wait_for_url(f"{shop.url}/")

    assert violations(lambda tab: None, [shop.url + path for path in ANONYMOUS]) == []
    assert violations(sign_in, [shop.url + path for path in SIGNED_IN]) == []


def test_the_console_has_no_violations(console: RunningConsole) -> None:
    def enter(tab: Tab) -> None:
        tab.goto(f"{console.url}/sign-in")
        tab.fill("input[name=name]", "ann")
        tab.fill("input[name=password]", console.passwords["ann"])
        tab.click("main button[type=submit]")
        tab.wait_for_url(f"{console.url}/")
        tab.fill("input[name=value]", "C-1001")
        tab.click("main button[type=submit]")
        tab.wait_for_url("**/profile/*")
        addresses.append(tab.url)

    addresses = [console.url + path for path in CONSOLE]
    assert violations(enter, addresses) == []


def test_the_sign_in_page_of_the_console_has_no_violations(console: RunningConsole) -> None:
    assert violations(lambda tab: None, [f"{console.url}/sign-in"]) == []
