"""The seam to HTTP: send one request by a deadline, get status, headers and body.

Everything that knows an HTTP client's classes and errors is in this package; sources see `Transport` only.
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
