"""The examples for frameworks: each as its user runs it, under uvicorn, with two browsers at once."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "frameworks"


@contextlib.contextmanager
def served(name: str) -> Iterator[str]:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    ((server, command),) = re.findall(r"^    (uvicorn|gunicorn) (.+)$", text, re.MULTILINE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bound = ["--port", str(port)] if server == "uvicorn" else ["--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", server, *command.split(), *bound],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("fastapi_shop", "fastapi"),
        ("litestar_shop", "litestar"),
        ("django_shop", "django"),
        ("flask_shop", "flask"),
    ],
)
def test_the_page_knows_who_is_in_session(name: str, module: str) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed: pip install {module}")
    with (
        served(name) as url,
        httpx.Client(base_url=url, follow_redirects=True, timeout=60) as ada,
        httpx.Client(base_url=url, timeout=60) as ben,
    ):
        assert ben.get("/").json() == {"hello": "there", "offer": "tea"}
        assert ada.get("/sign-in/u1").json() == {"hello": "Ada", "offer": "lounge"}
        ben.get("/sign-in/u2")
        page = ben.get("/")
        assert page.json() == {"hello": "Ben", "offer": "tea"}
        assert page.headers["cache-control"] == "private"
        assert "Cookie" in page.headers["vary"]
        assert ada.get("/").json() == {"hello": "Ada", "offer": "lounge"}
        if name != "django_shop":
            assert ada.get("/account").json() == {"first_name": "Ada", "tier": "gold"}
            assert httpx.get(f"{url}/account", timeout=60).status_code == 401
