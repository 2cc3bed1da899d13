"""The vendor's `max-age` and `ETag` in two processes that share a second level."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from profile_enrich.testing import VendorServer

from .valkey import Valkey

ROOT = Path(__file__).parents[2]
MAX_AGE = 4


class Process:
    """One interpreter that looks up the keys that it receives."""

    def __init__(self, vendor: VendorServer, valkey: Valkey) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.lookup_process"],
            cwd=ROOT,
            env={**os.environ, "CACHE_URL": valkey.url, "VENDOR_URL": vendor.base_url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready"

    def get(self, key: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{key}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> int:
        self._process.communicate("\n", timeout=60)
        return self._process.returncode


def test_S6_a_lifetime_that_the_vendor_sets_and_its_renewal_hold_in_every_process(valkey: Valkey) -> None:
    with VendorServer({"u1": {"tier": "gold"}}, entity="Users", key="secret", etags=True) as vendor:
        vendor.headers["cache-control"] = f"max-age={MAX_AGE}"
        one, other = Process(vendor, valkey), Process(vendor, valkey)
        try:
            assert one.get("u1") == "gold"
            loaded = time.monotonic()
            before = len(lookups(vendor))
            assert other.get("u1") == "gold"
            assert len(lookups(vendor)) == before  # the second level has it
            time.sleep(loaded + 1.25 * MAX_AGE - time.monotonic())  # both entries are no longer fresh; `ttl` is 600
            assert other.get("u1") == "gold"
            renewals = lookups(vendor)[before:]
            assert ["if-none-match" in headers for headers in renewals] == [True]  # with the ETag that `one` received
            assert one.get("u1") == "gold"
            assert len(lookups(vendor)) == before + 1  # the entry that the other process renewed
        finally:
            ends = [one.end(), other.end()]
        assert ends == [0, 0]


def lookups(vendor: VendorServer) -> list[Mapping[str, str]]:
    """Return the request headers of each lookup."""
    return [call.headers for call in vendor.calls if "u1" in call.target]
