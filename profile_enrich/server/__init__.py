"""The embedded Profile API: Census's and Amperity's profile endpoints over a local store.

It knows the store and nothing else: it shares no wire code with the clients in `sources/`, so that a mistake made once
cannot cancel out.
"""

from __future__ import annotations

from .app import ProfileAPI
from .auth import ApiKey
from .run import serve

__all__ = ["ApiKey", "ProfileAPI", "serve"]
