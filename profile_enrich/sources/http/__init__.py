"""HTTP transports for sources: send one request by a deadline, return status, headers and body.

Only this package imports HTTP clients; sources use the `Transport` protocol.
"""

from __future__ import annotations

from .messages import MAX_BODY_BYTES, Headers, HttpRequest, HttpResponse, Transport, TransportOptions
from .select_transport import TransportChoice, open_transport

__all__ = [
    "MAX_BODY_BYTES",
    "Headers",
    "HttpRequest",
    "HttpResponse",
    "Transport",
    "TransportChoice",
    "TransportOptions",
    "open_transport",
]
