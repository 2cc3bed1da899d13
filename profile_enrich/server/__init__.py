"""The embedded Profile API: Census's and Amperity's profile endpoints over a local store.

It knows the store and nothing else: it shares no wire code with the clients in `sources/`, so that a mistake made once
cannot cancel out.
"""

from __future__ import annotations

from .app import ProfileAPI
from .audit import AuditLog
from .auth import ApiKey
from .keys import KeyFile
from .quota import Rate
from .run import serve
from .scopes import FieldScope

__all__ = ["ApiKey", "AuditLog", "FieldScope", "KeyFile", "ProfileAPI", "Rate", "serve"]
