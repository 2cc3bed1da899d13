"""For tests of applications that use `profile_enrich`: a vendor that fails on order, a clock, a source without network.

- `VendorServer`: a real HTTP server on 127.0.0.1 that speaks Census's and Amperity's formats, records every call, and
  plays the faults of `profile_enrich.testing.faults`.
- `ManualClock`: a clock that stands still until the test moves it.
- `offline()`: a source that answers from memory, or fails as an unreachable vendor does.
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
