"""The console and its extension in Chromium: sign-in, search, a profile, and the side panel beside a ticket system."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from examples.operator_console.settings import HERE

from .browser import CHROMIUM, FLAGS
from .console import RunningConsole

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext
    from playwright.sync_api import Page as Tab

EXTENSION = HERE / "extension"
PERSONAL = ("lindqvist", "C-1001", "moretti", "tanaka", "walter")
SUPPORT = {
    "customer_id": "C-1001", "first_name": "Ada", "last_name": "Lindqvist", "email": "ada.lindqvist@mail.example",
    "city": "Gothenburg", "tier": "gold", "member_since": "2019-03-14", "open_orders": "1", "last_order": "2026-11-17",
}  # fmt: skip

_missing = [
    *(["Chromium (on Debian: apt-get install chromium)"] if CHROMIUM is None else []),
    *(["playwright (pip install playwright)"] if importlib.util.find_spec("playwright") is None else []),
]
needs_chromium = pytest.mark.skipif(
    bool(_missing),
    reason=f"the extension needs {' and '.join(_missing)}; what it asks the console is tested over HTTP",
)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[BrowserContext]:
    """Chromium with the extension loaded. Extensions are loaded only into a context that has a directory of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            viewport={"width": 1280, "height": 800},
            args=[
                *FLAGS,
                f"--disable-extensions-except={EXTENSION}",
                f"--load-extension={EXTENSION}",
                "--enable-unsafe-extension-debugging",  # lets a test click the icon
            ],
            ignore_default_args=["--disable-extensions"],
        )
        try:
            yield context
        finally:
            context.close()


def test_the_extension_asks_for_little() -> None:
    manifest = json.loads((EXTENSION / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["manifest_version"] == 3
    assert set(manifest["permissions"]) == {"sidePanel", "activeTab", "scripting", "storage"}
    assert manifest["host_permissions"] == ["http://127.0.0.1/*"]
    assert "content_scripts" not in manifest
    for script in EXTENSION.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "console.log", "console.error"):
            assert word not in text, script.name
    for page in EXTENSION.glob("*.html"):
        assert "<script>" not in page.read_text(encoding="utf-8")


@pytest.mark.long
@needs_chromium
def test_the_console_and_the_side_panel_in_chromium(tmp_path: Path) -> None:
    said: list[str] = []
    with RunningConsole(tmp_path).running() as console, chromium(tmp_path / "profile") as context:
        context.set_default_timeout(10_000)
        context.on("console", lambda message: said.append(message.text))
        context.on("weberror", lambda error: said.append(str(error.error)))
        worker = next(iter(context.service_workers), None) or context.wait_for_event("serviceworker")
        extension = worker.url.rpartition("/")[0]

        tickets = context.new_page()
        tickets.goto(f"{console.url}/tickets/7301")
        panel = open_panel(context, extension, tickets, console.url)
        panel.get_by_role("heading", name="Signed out").wait_for()

        page = walk(context, console, tmp_path)

        # The operator's session is enough: the panel needs no sign-in.
        panel.click("#again")
        panel.get_by_role("heading", name="Ada Lindqvist").wait_for()
        assert fields(panel) == SUPPORT
        assert "6 fields are not for your role" in panel.inner_text("main")
        assert "sam, support" in panel.inner_text("main")
        assert ("panel", "id") in [line[:2] for line in console.audit_log("sam")]
        shoot(tickets, tmp_path / "tickets.png", 900, 640)
        shoot(panel, tmp_path / "panel.png", 380, 640)

        # The side panel itself, opened by a click on the icon.
        tickets.bring_to_front()
        beside = SidePanel(context, extension, tickets)
        assert beside.waits_for("Ada Lindqvist")
        beside.shoot(tmp_path / "side.png")

        # Another ticket: the panel follows. This page has an e-mail address only.
        tickets.goto(f"{console.url}/tickets/7302")
        panel.get_by_role("heading", name="Chiara Moretti").wait_for()
        assert beside.waits_for("Chiara Moretti")
        tickets.goto(f"{console.url}/tickets/7303")
        panel.get_by_role("heading", name="Nobody known").wait_for()
        tickets.goto(f"{console.url}/tickets")
        panel.get_by_role("heading", name="No customer here").wait_for()

        options(context, panel, console.url)
        tickets.goto(f"{console.url}/tickets/7304")
        panel.get_by_role("heading", name="Emi Tanaka").wait_for()
        assert console.audit_log("sam")[-2][:2] == (
            "panel",
            "email",
        )  # by the new selector, although the page has an id

        with context.expect_page() as opened:
            panel.click("text=Open in the console")
        opened.value.get_by_role("heading", name="Emi Tanaka").wait_for()

        page.click("text=Sign out")
        panel.click("#again")
        panel.get_by_role("heading", name="Signed out").wait_for()

        kept = panel.evaluate("async () => JSON.stringify(await chrome.storage.local.get(null))")
        everything = "\n".join([kept, *said, console.said()]).lower()
        for words in PERSONAL:
            assert words.lower() not in everything
        # Chromium itself logs unsuccessful responses in the developer console, with the path alone.
        assert [line for line in said if "Failed to load resource" not in line] == []


class SidePanel:
    """Chromium's own side panel, opened by a click on the extension's icon.

    Playwright knows no such page, so it is asked over the protocol of the developer's tools.
    """

    def __init__(self, context: BrowserContext, extension: str, tickets: Tab) -> None:
        assert context.browser is not None
        self._session = context.browser.new_browser_cdp_session()
        self._answers: dict[int, dict[str, Any]] = {}
        self._session.on("Target.receivedMessageFromTarget", self._receive)
        everything: list[dict[str, Any]] = [{"type": "tab"}, {"exclude": True}]
        tabs = self._session.send("Target.getTargets", {"filter": everything})["targetInfos"]
        (tab,) = [each["targetId"] for each in tabs if each["url"] == tickets.url]
        self._session.send("Extensions.triggerAction", {"id": extension.rpartition("/")[2], "targetId": tab})
        target = self._find(f"{extension}/panel.html")
        attached = self._session.send("Target.attachToTarget", {"targetId": target, "flatten": False})
        self._id = attached["sessionId"]

    def _find(self, url: str) -> str:
        end = time.monotonic() + 10
        while True:
            for each in self._session.send("Target.getTargets")["targetInfos"]:
                if each["url"] == url:
                    return str(each["targetId"])
            assert time.monotonic() < end, "the side panel did not open"
            time.sleep(0.05)

    def _receive(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            self._answers[message["id"]] = message

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = len(self._answers) + 1
        message = json.dumps({"id": number, "method": method, "params": parameters})
        self._session.send("Target.sendMessageToTarget", {"sessionId": self._id, "message": message})
        end = time.monotonic() + 10
        while number not in self._answers:
            assert time.monotonic() < end, f"no answer to {method}"
            self._session.send("Target.getTargets")  # meanwhile events come in
        result: dict[str, Any] = self._answers[number]["result"]
        return result

    def waits_for(self, heading: str) -> bool:
        """Return whether the panel eventually shows this heading."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            expression = "document.querySelector('h1')?.textContent ?? ''"
            if self._ask("Runtime.evaluate", expression=expression)["result"]["value"] == heading:
                return True
            time.sleep(0.05)
        return False

    def shoot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))


def open_panel(context: BrowserContext, extension: str, tickets: Tab, console: str) -> Tab:
    """The panel's page in a tab, about the tickets's tab: there Playwright can click in it."""
    panel = context.new_page()
    # A page of the extension, not its worker, which may not be ready, or sleep, when it is asked.
    panel.goto(f"{extension}/options.html")
    panel.evaluate("(url) => chrome.storage.local.set({ console: url })", console)
    tab = panel.evaluate("async (url) => (await chrome.tabs.query({})).find((tab) => tab.url === url)?.id", tickets.url)
    assert isinstance(tab, int)
    panel.goto(f"{extension}/panel.html?tab={tab}")
    return panel


def fields(panel: Tab) -> dict[str, str]:
    found: Any = panel.eval_on_selector_all("dd", "all => all.map(dd => [dd.dataset.field, dd.textContent])")
    return dict(found)


def options(context: BrowserContext, panel: Tab, url: str) -> None:
    """Set another element for the e-mail address on the extension's options page."""
    from playwright.sync_api import expect

    with context.expect_page() as opened:
        panel.click("#options")
    page = opened.value
    # Not wait_for_function: it evaluates text, which the extension's Content-Security-Policy forbids.
    expect(page.locator("#console")).to_have_value(url)
    page.fill("#idSelector", "p[")
    page.click("text=Save")
    page.get_by_text("This is no CSS selector.").wait_for()
    page.fill("#idSelector", "")
    page.fill("#emailSelector", "a.requester")
    page.fill("#emailAttribute", "")
    page.click("text=Save")
    page.get_by_text("Saved.").wait_for()
    page.close()


def walk(context: BrowserContext, console: RunningConsole, pictures: Path) -> Tab:
    """Sign in as support, search, and read a profile; also at a phone's width."""
    page = context.new_page()
    page.goto(console.url)
    page.fill("#name", "sam")
    page.fill("#password", console.passwords["sam"])
    page.click("button:has-text('Sign in')")
    page.wait_for_url(f"{console.url}/")
    (cookie,) = [each for each in context.cookies() if each.get("name") == "console"]
    assert cookie.get("httpOnly")
    assert cookie.get("sameSite") == "Lax"
    page.select_option("#kind", "city")
    page.fill("#value", "Gothenburg")
    page.click("button:has-text('Search')")
    page.get_by_text("2 profiles").wait_for()
    shoot(page, pictures / "search.png", 1100, 640)
    page.click("text=Ada Lindqvist")
    page.get_by_role("heading", name="Ada Lindqvist").wait_for()
    assert page.inner_text("[data-field=city]") == "Gothenburg"
    assert "6 fields are not for your role" in page.inner_text("main")
    shoot(page, pictures / "profile.png", 1100, 760)
    for width in (320, 390, 768):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    shoot(page, pictures / "phone.png", 390, 844)
    return page


def shoot(page: Tab, path: Path, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.screenshot(path=path)
