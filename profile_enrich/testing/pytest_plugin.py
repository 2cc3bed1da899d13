"""pytest plugin with fixtures: `pytest_plugins = ["profile_enrich.testing.pytest_plugin"]` in a conftest.py.

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
    """Run a vendor server without profiles for the test."""
    with VendorServer() as vendor:
        yield vendor


@pytest.fixture
def profile_clock() -> ManualClock:
    """Make a clock that only the test advances."""
    return ManualClock()
