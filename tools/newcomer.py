"""What a newcomer's first mistakes look like. `python -m tools.newcomer` makes each of them and writes what is seen."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from profile_enrich import (
    CensusSource,
    MemorySource,
    ProfileClient,
    ProfileEnrichError,
    ProfileMiddleware,
    from_session,
    get_profile,
)
from profile_enrich._utils.log_once import LogOnce
from profile_enrich.cli.app import cli
from profile_enrich.testing import VendorServer, faults
from profile_enrich.web import profile_dependencies

PAGE = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
KEY = "secret-token:sk_live_4242424242"
ADA = {"u1": {"first_name": "Ada"}}


@contextmanager
def logged() -> Iterator[list[str]]:
    """The log of the package, one message after the other, without tracebacks."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.name}: {record.getMessage().splitlines()[0]}")

    handler, logger = Handler(), logging.getLogger("profile_enrich")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def shop(*middleware: Middleware, page: Callable[[Request], Any] | None = None) -> list[str]:
    """What the log says when a page of this application is opened twice. The page is served, whatever it says."""

    async def home(request: Request) -> PlainTextResponse:
        profile = request.state.profile if page is None else page(request)
        return PlainTextResponse(
            (await profile if asyncio.iscoroutine(profile) else profile).get("first_name", "there")
        )

    app = Starlette(routes=[Route("/", home)], middleware=middleware)
    with logged() as lines, TestClient(app) as browser:
        for _ in range(2):
            assert browser.get("/").status_code == 200
    return lines


def ours(**options: Any) -> Middleware:
    client = options.pop("client", None) or ProfileClient(MemorySource(ADA))
    return Middleware(ProfileMiddleware, client=client, **{"identify": from_session(), **options})


def doctor(vendor: VendorServer | None, port: int = 0, **settings: str) -> list[str]:
    """What `profile-enrich doctor` prints that is not in order."""
    environment = {
        "PROFILE_ENRICH_API_KEY": KEY,
        "PROFILE_ENRICH_ENTITY": "Users",
        "PROFILE_ENRICH_BASE_URL": f"http://127.0.0.1:{port}/api/v1" if vendor is None else vendor.base_url,
        **settings,
    }
    done = CliRunner(env=environment).invoke(cli, ["doctor", "--calls", "1"])
    lines = done.stdout.splitlines()
    return [
        line for number, line in enumerate(lines) if "WRONG" in line or ("->" in line and "WRONG" in lines[number - 1])
    ]


def said(make: Callable[[], object]) -> list[str]:
    """What is raised."""
    try:
        make()
    except ProfileEnrichError as error:
        return [f"{type(error).__name__}: {error}"]
    raise AssertionError("nothing was raised")


def wrong_key() -> list[str]:
    with VendorServer(ADA, entity="Users", key=KEY) as vendor:
        found = doctor(vendor, PROFILE_ENRICH_API_KEY="secret-token:another-key")
        source = CensusSource(
            "secret-token:another-key", entity="Users", base_url=vendor.base_url, allow_insecure_http=True
        )
        middleware = ours(client=ProfileClient(source), identify=lambda request: "u1", budget=5.0)
        return [*found, *shop(middleware)]


def wrong_entity() -> list[str]:
    with VendorServer(ADA, entity="Users", key=KEY) as vendor:
        return doctor(vendor, PROFILE_ENRICH_ENTITY="users")


def clock_off() -> list[str]:
    ahead = mock.Mock(wraps=time, time=lambda: time.time() + 1_000)
    with (
        VendorServer(ADA, entity="Users", key=KEY) as vendor,
        mock.patch("profile_enrich.cli.doctor_checks.time", ahead),
    ):
        return doctor(vendor)


def no_network() -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = CensusSource(KEY, entity="Users", base_url=f"http://127.0.0.1:{port}/api/v1", allow_insecure_http=True)
    return [
        *doctor(None, port),
        *shop(ours(client=ProfileClient(source), identify=lambda request: "u1", budget=5.0)),
    ]


def slow_vendor() -> list[str]:
    with VendorServer(ADA, entity="Users", key=KEY) as vendor:
        vendor.script(then=faults.Hang())
        source = CensusSource(KEY, entity="Users", base_url=vendor.base_url, allow_insecure_http=True)
        client = ProfileClient(source, deadline=0.2)
        return shop(ours(client=client, identify=lambda request: "u1", budget=2.0))


def id_of_another_type() -> list[str]:
    client = ProfileClient(MemorySource(ADA))
    number: Any = 478060
    return [
        *said(lambda: asyncio.run(client.get(number))),
        *shop(ours(identify=lambda request: ["u1"])),
    ]


def wrong_order() -> list[str]:
    return shop(ours(), Middleware(SessionMiddleware, secret_key="secret"))


def no_session() -> list[str]:
    return shop(ours())


def session_in_own_function() -> list[str]:
    return shop(ours(identify=lambda request: request.session.get("user_id")))


def not_installed() -> list[str]:
    with mock.patch.object(profile_dependencies, "_once", LogOnce()):
        return shop(page=get_profile)


def not_awaited() -> list[str]:
    return shop(ours(identify=lambda request: "u1", attach="lazy"))


def two_loops() -> list[str]:
    with VendorServer(ADA, entity="Users", key=KEY) as vendor:
        own = httpx.AsyncClient()
        source = CensusSource(KEY, entity="Users", base_url=vendor.base_url, allow_insecure_http=True, transport=own)
        client = ProfileClient(source)
        first = asyncio.new_event_loop()
        try:
            first.run_until_complete(client.get("u1"))
            return said(lambda: asyncio.run(client.get("u2")))
        finally:
            first.run_until_complete(client.aclose())
            first.run_until_complete(own.aclose())
            first.close()


def wsgi() -> list[str]:
    def flask(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return [b"hello"]

    app: Any = flask
    return said(lambda: ProfileMiddleware(app, client=ProfileClient(MemorySource(ADA)), identify=lambda request: None))


def missing_extra() -> list[str]:
    with mock.patch.dict("sys.modules", {"itsdangerous": None}):
        from profile_enrich import from_signed_cookie

        return said(lambda: from_signed_cookie("user", "secret"))


SITUATIONS: dict[str, tuple[Callable[[], list[str]], str]] = {
    "A wrong key": (wrong_key, "Set the workspace's own key. Until then, pages are served without profiles."),
    "A wrong entity": (wrong_entity, "Names are compared exactly."),
    "The clock is off": (clock_off, "Tokens and signed calls are rejected, or tokens are renewed too late."),
    "No network": (
        no_network,
        "Pages are served without profiles. After five consecutive failures, the circuit breaker stops the calls for a while.",
    ),
    "The vendor is slow or hangs": (slow_vendor, "No page waits longer than its `budget`."),
    "An id of another type": (
        id_of_another_type,
        "Keys are text, exactly as in the vendor's data. `from_session` and similar functions convert an integer to its digits.",
    ),
    "The middleware in the wrong order": (
        wrong_order,
        "Starlette calls middleware in the order of the list: `SessionMiddleware` first.",
    ),
    "`SessionMiddleware` is missing": (no_session, "Add it, before `ProfileMiddleware`."),
    "A custom identity function that needs a session": (
        session_in_own_function,
        "`request.session` needs `SessionMiddleware` outside. The lines below the message show its location.",
    ),
    "`ProfileMiddleware` is missing": (
        not_installed,
        "Add it to the application; without it, `get_profile` returns an empty profile.",
    ),
    "Read before it was looked up": (not_awaited, 'With `attach="lazy"`, the lookup starts when it is awaited.'),
    "Two event loops": (
        two_loops,
        "An HTTP client that you pass is bound to the loop of its first use. Without `transport`, each loop gets "
        "its own client.",
    ),
    "A WSGI application": (wsgi, "The middleware is for ASGI."),
    "An extra is missing": (missing_extra, "The message has the command."),
}

_HEAD = """# Troubleshooting

Find the messages of common mistakes, with their remedies. Start with `profile-enrich doctor`, which checks settings, network,
clock, credentials, entity and latency, and prints remedies. The tests provoke each mistake, and `python -m tools.newcomer` writes
this page. All errors with their codes are in [When things fail](failing.md).
"""


def messages() -> dict[str, list[str]]:
    """Return the messages of each situation."""
    with mock.patch.dict(os.environ, {name: "" for name in os.environ if name.startswith("PROFILE_ENRICH_")}):
        return {title: [_plain(line) for line in run()] for title, (run, _) in SITUATIONS.items()}


def _plain(line: str) -> str:
    """Replace ports and measured values, so that the page is the same on every machine."""
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8787", line).strip()


def page(found: dict[str, list[str]]) -> str:
    """Return the page in Markdown."""
    parts = [_HEAD]
    for title, (_, remedy) in SITUATIONS.items():
        lines = "\n".join(found[title])
        parts.append(f"## {title}\n\n```text\n{lines}\n```\n\n{remedy}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(messages()), encoding="utf-8")
