"""A relay in front of a vendor: the embedded Profile API over what was mirrored, filled from the vendor as it is asked.

It is the one package that joins the server with the sources; neither knows of the other.
"""

from __future__ import annotations

from .comparison import Comparison, compare, compare_index
from .mirroring import MirrorReport, mirror_ids, mirror_index
from .read_ids import read_ids
from .relay import Relay

__all__ = ["Comparison", "MirrorReport", "Relay", "compare", "compare_index", "mirror_ids", "mirror_index", "read_ids"]
