"""Relay in front of a vendor: the embedded Profile API over a mirror that is filled from the vendor on demand.

Only this package imports both the server and the sources.
"""

from __future__ import annotations

from .comparison import Comparison, compare, compare_index
from .mirroring import MirrorReport, mirror_ids, mirror_index
from .read_ids import read_ids
from .relay import Relay

__all__ = ["Comparison", "MirrorReport", "Relay", "compare", "compare_index", "mirror_ids", "mirror_index", "read_ids"]
