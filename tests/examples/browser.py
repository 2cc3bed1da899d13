"""Headless Chromium, if it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

_missing = [
    *(["Chromium (on Debian: apt-get install chromium)"] if CHROMIUM is None else []),
    *(["playwright (pip install playwright)"] if importlib.util.find_spec("playwright") is None else []),
]
needs_browser = pytest.mark.skipif(
    bool(_missing),
    reason=f"the walk in a browser needs {' and '.join(_missing)}; the same walk over HTTP is in this file and runs",
)


@contextlib.contextmanager
def browser() -> Generator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()
