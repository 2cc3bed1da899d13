"""Test helpers for applications: a vendor server with scripted faults, a manual clock, an offline source.

- `VendorServer`: a real HTTP server on 127.0.0.1 that speaks Census's and Amperity's formats, records every call, and
  plays the faults of `profile_enrich.testing.faults`.
- `ManualClock`: a clock that only the test advances.
- `offline()`: a source that reads from memory, or fails like an unreachable vendor.
- `profile_enrich.testing.pytest_plugin`: the fixtures `vendor_server` and `profile_clock`.
"""

from __future__ import annotations

from . import faults
from .clock import ManualClock
from .exchange import Answer, Exchange
from .faults import Fault
from .offline import OfflineSource, offline
from .recorder import Call, Recorder
from .vendor import VendorServer

__all__ = [
    "Answer",
    "Call",
    "Exchange",
    "Fault",
    "ManualClock",
    "OfflineSource",
    "Recorder",
    "VendorServer",
    "faults",
    "offline",
]
