"""The operator's console and its Profile API as two processes, and operators who use it over HTTP."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from examples import demo
from examples.operator_console import passwords
from examples.operator_console.__main__ import SEARCH_BY, profile_api
from examples.operator_console.database import open_database
from examples.operator_console.users import Users

from .shop import free_port

ROLES = {"ann": "admin", "sam": "support", "tess": "trainee", "lou": "support"}


@contextlib.contextmanager
def quick_passwords() -> Iterator[None]:
    """Hash passwords at a low cost; each hash records its own cost for comparisons."""
    with mock.patch.object(passwords, "LOG_N", 8):
        yield


class RunningConsole:
    """Both processes, started as documented, in a temporary directory."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.settings = settings
        self.key = secrets.token_urlsafe(32)
        self.api_port, self.port = free_port(), free_port()
        self.url = f"http://{demo.HOST}:{self.port}"
        self.data = directory / "console"
        self.log = directory / "console.log"
        self.passwords: dict[str, str] = {}

    @contextlib.contextmanager
    def running(self) -> Generator[RunningConsole]:
        """Runs them. The very first start makes the user `admin`; the other users are added while it runs."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CONSOLE_")},
            "CONSOLE_API_KEY": self.key,
            "CONSOLE_API_URL": f"http://{demo.HOST}:{self.api_port}/api",
            "CONSOLE_SEARCH_BY": ",".join(SEARCH_BY),
            "CONSOLE_DATA": str(self.data),
            "CONSOLE_TICKETS": "1",
            **self.settings,
        }
        api = profile_api(self.api_port, self.key)
        command = [sys.executable, "-m", "examples.operator_console", "serve", "--port", str(self.port)]
        with self.log.open("wb") as log:
            console = subprocess.Popen(command, env=environment, cwd=demo.ROOT, stdout=log, stderr=log)
            try:
                api.start()
                self._wait(console)
                with contextlib.closing(open_database(self.data)) as database, quick_passwords():
                    users = Users(database)
                    for name, role in ROLES.items():
                        self.passwords[name] = users.add(name, role, must_change=False)
                api.wait_until_ready()
                yield self
            finally:
                console.terminate()
                console.wait(30)
                api.stop()

    def _wait(self, console: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/ready", timeout=30).status_code == 200:
                    return
            assert console.poll() is None, self.said()
            assert time.monotonic() < end, "the console never answered"
            time.sleep(0.05)

    def said(self) -> str:
        """Everything that the console wrote to its terminal."""
        return self.log.read_text(encoding="utf-8")

    def records_asked(self) -> int:
        """Return the number of single profiles served by the Profile API, from its own counter."""
        answer = httpx.get(
            f"http://{demo.HOST}:{self.api_port}/status", headers={"authorization": f"Bearer {self.key}"}, timeout=30
        )
        answer.raise_for_status()
        return int(answer.json()["requests"].get("amperity.profile", 0))

    def audit_log(self, who: str = "") -> list[tuple[str, str, str, str]]:
        """Return action, kind, subject and outcome of the audit log's lines, oldest first."""
        with contextlib.closing(sqlite3.connect(self.data / "console.db")) as database:
            rows = database.execute(
                "SELECT who, action, kind, subject, outcome FROM audit_log ORDER BY number"
            ).fetchall()
        return [(action, kind, subject, outcome) for name, action, kind, subject, outcome in rows if name == who]

    @contextlib.contextmanager
    def browser(self, **options: Any) -> Iterator[Browser]:
        """A browser without a session."""
        with httpx.Client(base_url=self.url, follow_redirects=True, timeout=15, **options) as client:
            yield Browser(client, self)

    @contextlib.contextmanager
    def operator(self, name: str) -> Iterator[Browser]:
        """A signed-in operator."""
        with self.browser() as browser:
            assert browser.sign_in(name, self.passwords[name]).status_code == 200
            yield browser


class Browser:
    """A browser without JavaScript: cookies, links, forms with their tokens. It looks for the key in all answers."""

    def __init__(self, client: httpx.Client, console: RunningConsole) -> None:
        self.client = client
        self.console = console
        self.page = ""
        client.event_hooks["response"].append(self._no_key)

    def _no_key(self, response: httpx.Response) -> None:
        response.read()
        assert self.console.key not in response.text
        assert self.console.key not in str(response.headers)

    def get(self, path: str = "/") -> httpx.Response:
        response = self.client.get(path)
        self.page = response.text
        return response

    def post(self, path: str, **form: str) -> httpx.Response:
        token = re.search(r'name="csrf" value="([^"]+)"', self.page)
        fields = {"csrf": token[1] if token else "", **form}
        response = self.client.post(path, data=fields, headers={"origin": self.console.url})
        self.page = response.text
        return response

    def sign_in(self, name: str, password: str, target: str = "/") -> httpx.Response:
        return self.post("/sign-in", name=name, password=password, next=target)

    def search(self, value: str, kind: str = "id") -> httpx.Response:
        self.get("/")
        return self.post("/search", kind=kind, value=value)

    def ask(self, question: object, **headers: str) -> httpx.Response:
        """Send the request of the side panel."""
        content = question if isinstance(question, bytes) else json.dumps(question).encode()
        sent = {
            "content-type": "application/json",
            "x-console": "panel",
            "origin": "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            **headers,
        }
        return self.client.post("/panel/profile", content=content, headers=sent)

    @property
    def fields(self) -> dict[str, str]:
        """The profile on the page."""
        found = re.findall(r'<dd data-field="([^"]+)">([^<]*)</dd>', self.page)
        return {name: html.unescape(text) for name, text in found}

    @property
    def text(self) -> str:
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", self.page)))
