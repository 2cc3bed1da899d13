"""The demo's two processes on free ports, and visitors of the shop over HTTP."""

from __future__ import annotations

import contextlib
import html
import re
import secrets
import socket
import time
from collections.abc import Callable, Generator, Mapping

import httpx

from examples import demo


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((demo.HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Shop:
    """The Profile API and the shop, started as `make demo` starts them.

    Args:
        environment: of the shop. Its budget is ten seconds by default: a busy machine needs more than its 50 ms.
        api_port: where a Profile API runs already.
        key: for it.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, *, api_port: int | None = None, key: str | None = None
    ) -> None:
        self.key = key or secrets.token_urlsafe(32)
        self.api_port, self.port = api_port or free_port(), free_port()
        self.url = f"http://{demo.HOST}:{self.port}"
        self.api = demo.profile_api(self.api_port, self.key)
        self.shop = demo.storefront(
            self.port, self.api_port, self.key, {"STOREFRONT_BUDGET": "10", **(environment or {})}
        )

    @contextlib.contextmanager
    def running(self, *, api: bool = True) -> Generator[Shop]:
        processes = (self.api, self.shop) if api else (self.shop,)
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.wait_until_ready()
            yield self
        finally:
            self.shop.stop()
            self.api.stop()

    def restart_api(self) -> None:
        self.api.stop()
        self.api = demo.profile_api(self.api_port, self.key)
        self.api.start()
        self.api.wait_until_ready()

    def records_asked(self) -> int:
        """Return the number of records served by the Profile API, from its own counter."""
        answer = httpx.get(
            f"http://{demo.HOST}:{self.api_port}/status", headers={"authorization": f"Bearer {self.key}"}, timeout=30
        )
        answer.raise_for_status()
        return int(answer.json()["requests"].get("census.record", 0))

    @contextlib.contextmanager
    def visitor(self, household: str | None = None) -> Generator[Visitor]:
        """A visitor with a separate browser; signed in, if a household is given."""
        with httpx.Client(base_url=self.url, follow_redirects=True, timeout=10) as client:
            visitor = Visitor(client, self.url)
            if household is not None:
                assert visitor.sign_in(household).status_code == 200
            yield visitor


class Page:
    """A page as received, and its duration."""

    def __init__(self, response: httpx.Response, seconds: float) -> None:
        self.response = response
        self.status_code = response.status_code
        self.html = response.text
        self.text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", response.text)))
        self.seconds = seconds

    def figure(self, name: str) -> str:
        """One of the figures of the strip: `status`, `age`, `milliseconds`, `lookups`, `source-calls`."""
        found = re.search(rf'data-strip="{name}">([^<]*)<', self.html)
        return found[1] if found else ""

    @property
    def links(self) -> list[str]:
        return list(dict.fromkeys(html.unescape(link) for link in re.findall(r'href="(/[^"]*)"', self.html)))

    @property
    def products(self) -> list[str]:
        return re.findall(r'href="/product/(\d+)"', self.html)


class Visitor:
    """A browser without JavaScript: cookies, links and forms."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self.client = client
        self.url = url

    def get(self, path: str = "/") -> Page:
        started = time.perf_counter()
        response = self.client.get(path)
        return Page(response, time.perf_counter() - started)

    def post(self, path: str, **form: str) -> Page:
        started = time.perf_counter()
        response = self.client.post(path, data=form, headers={"origin": self.url})
        return Page(response, time.perf_counter() - started)

    def sign_in(self, household: str) -> Page:
        return self.post("/sign-in", household=household)

    def wait_for(self, condition: Callable[[Page], bool], path: str = "/", seconds: float = 30.0) -> Page:
        """Reloads a page until it looks as expected."""
        end = time.monotonic() + seconds
        while not condition(page := self.get(path)):
            assert page.status_code == 200
            assert time.monotonic() < end, f"the page never came: {page.figure('status')}"
            time.sleep(0.1)
        return page
