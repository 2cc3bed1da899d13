"""The embedded Profile API: Census's and Amperity's profile endpoints over a local store.

It imports only the store, and shares no wire code with the clients in `sources/`, so that the same mistake cannot be
made on both sides.
"""

from __future__ import annotations

from .app import ProfileAPI
from .audit import AuditLog
from .auth.api_keys import ApiKey
from .auth.field_scopes import FieldScope
from .auth.key_file import KeyFile
from .auth.rate_limits import Rate
from .process.serve import serve

__all__ = ["ApiKey", "AuditLog", "FieldScope", "KeyFile", "ProfileAPI", "Rate", "serve"]
