"""Personal pages behind real HTTP caches: no visitor gets another's page, and shared pages are cached."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent
CACHING = ROOT / "examples" / "caching"
CACHES = {"varnish": "varnishd", "nginx": "nginx"}
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            until = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None or time.monotonic() > until:
                    process.kill()
                    pytest.fail(f"{command[0]} does not listen: {process.communicate()[0]}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.communicate(timeout=20)


def varnish(folder: Path, port: int, app_port: int) -> list[str]:
    vcl = folder / "shop.vcl"
    vcl.write_text((CACHING / "shop.vcl").read_text(encoding="utf-8").replace("8001", str(app_port)), encoding="utf-8")
    listen = ["-a", f"127.0.0.1:{port}", "-s", "malloc,20m", "-j", "none", "-n", str(folder / "work")]
    return ["varnishd", "-F", *listen, "-f", str(vcl)]


def nginx(folder: Path, port: int, app_port: int) -> list[str]:
    text = (CACHING / "shop.nginx.conf").read_text(encoding="utf-8").replace("/tmp/shop-nginx", str(folder))
    (folder / "nginx.conf").write_text(text.replace("8001", str(app_port)).replace("8080", str(port)), encoding="utf-8")
    # Without it, the workers of an nginx started by root cannot read the test's directory.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf"), *user]


COMMANDS: dict[str, Callable[[Path, int, int], list[str]]] = {"varnish": varnish, "nginx": nginx}


@pytest.fixture(scope="module", params=list(CACHES))
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The name of the cache, and its URL."""
    name: str = request.param
    program = shutil.which(CACHES[name], path=SBIN)
    if program is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {'nginx-light' if name == 'nginx' else name}")
    port, app_port = free_port(), free_port()
    app = [sys.executable, "-m", "uvicorn", "examples.caching.app:app", "--port", str(app_port), "--log-level", "error"]
    command = COMMANDS[name](tmp_path_factory.mktemp(name), port, app_port)
    with running(app, app_port), running([program, *command[1:]], port):
        yield name, f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def browser(url: str, user: str | None = None) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, verify=False) as client:  # no TLS here, and loading the CA certificates is slow
        if user is not None:
            assert client.get(f"/sign-in/{user}").status_code == 303
        yield client


def renderings(url: str) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"{url}/rendered").json()
    return found


def test_A13_a_private_page_is_never_kept(cache: tuple[str, str]) -> None:
    """A13: the application answers every request for it, also for anonymous visitors."""
    _, url = cache
    before = renderings(url).get("private", 0)
    with browser(url, "u1") as one, browser(url, "u2") as two, browser(url) as nobody:
        for _ in range(3):
            assert one.get("/").text == "<h1>Hello Name1</h1>"
            assert nobody.get("/").text == "<h1>Hello there</h1>"
            assert two.get("/").text == "<h1>Hello Name2</h1>"
        page = one.get("/")
        assert page.headers["cache-control"] == "private"
        assert "cookie" in page.headers["vary"].lower()
    assert renderings(url)["private"] == before + 10


def test_A13_a_public_page_is_kept_once_for_all_with_a_private_part_in_it(cache: tuple[str, str]) -> None:
    """A13: a page that does not read the profile is unchanged, even for a signed-in visitor."""
    name, url = cache
    with browser(url, "u1") as one, browser(url, "u2") as two, browser(url) as nobody:
        pages = [client.get("/shop") for client in (one, two, nobody, one, two)]
        # With the audience in the cache key, there is one entry for each audience.
        assert renderings(url)["public"] == (1 if name == "varnish" else 2)
        assert pages[-1].headers["x-cache"].lower() == "hit"
        if name == "varnish":
            assert [page.text for page in pages] == [
                f"<h1>The shop</h1><p>Hello {who}</p>" for who in ("Name1", "Name2", "there", "Name1", "Name2")
            ]
        else:
            assert len({page.text for page in pages}) == 1
            assert "greeting.js" in pages[0].text
            assert [client.get("/greeting").text for client in (one, two, nobody, one)] == [
                f"<p>Hello {who}</p>" for who in ("Name1", "Name2", "there", "Name1")
            ]


def test_A13_a_page_for_an_audience_is_kept_once_for_each(cache: tuple[str, str]) -> None:
    """A13: the page reads a header with few values instead of the profile."""
    _, url = cache
    with (
        browser(url, "u1") as basic,
        browser(url, "u2") as gold,
        browser(url, "u4") as gold_too,
        browser(url) as nobody,
    ):
        for _ in range(3):
            assert gold.get("/banner").text == gold_too.get("/banner").text == "<h1>Your lounge is open</h1>"
            assert basic.get("/banner").text == nobody.get("/banner").text == "<h1>Welcome</h1>"
        assert renderings(url)["banner"] == 2
        # The client's own value of the header is ignored.
        assert nobody.get("/banner", headers={"x-audience": "vip"}).text == "<h1>Welcome</h1>"


@pytest.mark.long
async def test_L9_A13_under_load_nobody_sees_a_page_made_for_another(cache: tuple[str, str]) -> None:
    """L9, A13: 40 signed-in and 20 anonymous visitors request all pages concurrently."""
    name, url = cache
    wrong: list[str] = []

    async def person(number: int) -> None:
        rng = random.Random(number)
        user = f"u{number}" if number < 40 else None
        mine = f"Name{number}<" if user else "there<"
        async with httpx.AsyncClient(base_url=url, timeout=30, verify=False) as client:
            if user:
                await client.get(f"/sign-in/{user}")
            for _ in range(6):
                path = rng.choice(["/", "/greeting", "/shop"])
                page = (await client.get(path)).text
                if (path != "/shop" or name == "varnish") and mine not in page:
                    wrong.append(path)
                if page.count("Name") > (user is not None):
                    wrong.append(path)

    await asyncio.gather(*(person(number) for number in range(60)))
    assert wrong == []


NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=pages:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{app_port};
            proxy_cache pages;
            proxy_cache_valid 500 10s;
            proxy_cache_valid any 10s;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
}}
"""


@pytest.mark.long
@pytest.mark.parametrize("app", ["inside", "outside"])
def test_A23_an_error_page_that_nginx_keeps_is_nobodys(app: str, tmp_path: Path) -> None:
    """A23: Starlette sends the error page from outside the middleware, and nginx stores it."""
    program = shutil.which("nginx", path=SBIN)
    if program is None:
        pytest.skip("nginx is not installed; on Debian: apt-get install nginx-light")
    port, app_port = free_port(), free_port()
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, app_port=app_port), encoding="utf-8")
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    served = [sys.executable, "-m", "uvicorn", f"tests.apps.error_pages:{app}"]
    with (
        running([*served, "--port", str(app_port), "--log-level", "critical"], app_port),
        running([program, "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf"), *user], port),
    ):
        pages = []
        for who in ("u1", "u2", "u1", None):
            page = httpx.get(f"http://127.0.0.1:{port}/", cookies={} if who is None else {"user": who}, timeout=30)
            assert page.status_code == 500
            pages.append((page.text, page.headers["x-cache"]))
        public = page.headers["cache-control"]
    if app == "inside":
        assert pages == [("Sorry there", "MISS"), *[("Sorry there", "HIT")] * 3], "stored, and personal to nobody"
        assert public == "public, max-age=60"
    else:
        assert pages == [(f"Sorry {name}", "MISS") for name in ("Ann", "Bo", "Ann", "there")], "made for each"
        assert public == "private, max-age=60"
