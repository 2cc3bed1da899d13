"""Fixtures for pytest: `pytest_plugins = ["profile_enrich.testing.pytest_plugin"]` in a test module or conftest.py.

- `vendor_server`: a running, empty `VendorServer` (entity `"Users"`, key `"secret"`); fill `vendor_server.profiles`.
- `profile_clock`: a `ManualClock`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .clock import ManualClock
from .vendor import VendorServer

__all__ = ["profile_clock", "vendor_server"]


@pytest.fixture
def vendor_server() -> Iterator[VendorServer]:
    """A running vendor server without profiles; it ends with the test."""
    with VendorServer() as vendor:
        yield vendor


@pytest.fixture
def profile_clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()
