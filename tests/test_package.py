"""The package as a whole: its exports, its import time, and its state after a fork."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import profile_enrich

EXTRAS = [
    "aiohttp", "click", "duckdb", "fastapi", "httpx2", "itsdangerous", "jinja2", "msgspec", "pydantic", "pytest",
    "rich", "uvicorn",
]  # fmt: skip


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_that_is_exported_is_there_and_sorted() -> None:
    for name in profile_enrich.__all__:
        assert getattr(profile_enrich, name) is not None
    assert sorted(profile_enrich.__all__) == profile_enrich.__all__


def test_importing_it_imports_no_extra() -> None:
    loaded = run(f"""
        import sys, profile_enrich
        print([name for name in {EXTRAS!r} if name in sys.modules])
    """)
    assert loaded == "[]"


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
def test_A9_a_client_that_was_used_before_a_fork_works_in_the_child() -> None:
    """A9: nothing bound to a loop or a socket is carried over a fork; locks held at that moment are renewed."""
    answer = run("""
        import asyncio, os
        from profile_enrich import ProfileClient
        from profile_enrich.testing import offline

        client = ProfileClient(offline({"u1": {"a": 1}, "u2": {"a": 2}}))
        asyncio.run(client.get("u1"))
        client._cache._lock.acquire()
        client._observer._lock.acquire()
        child = os.fork()
        if child == 0:
            profiles = asyncio.run(client.get_many(["u1", "u2"]))
            os._exit(0 if [p["a"] for p in profiles.values()] == [1, 2] else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert answer == "0"
