"""The default TLS context."""

from __future__ import annotations

import os
import ssl
from functools import cache
from types import ModuleType

__all__ = ["default_tls"]


def default_tls(httpx: ModuleType) -> ssl.SSLContext:
    """Return httpx's default context: certifi's or the system's authorities, or those of `SSL_CERT_FILE` /
    `SSL_CERT_DIR`.

    It is made once per process, because reading hundreds of certificates takes tens of milliseconds.
    """
    return _made(httpx, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _made(httpx: ModuleType, file: str | None, directory: str | None) -> ssl.SSLContext:
    context: ssl.SSLContext = httpx.create_ssl_context()  # reads the two variables
    return context
