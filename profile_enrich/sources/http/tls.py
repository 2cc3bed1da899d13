"""The authorities that certificates are verified against."""

from __future__ import annotations

import os
import ssl
from functools import cache
from types import ModuleType

__all__ = ["default_tls"]


def default_tls(httpx: ModuleType) -> ssl.SSLContext:
    """The context that httpx (or httpx2) itself would use: certifi's or the system's authorities, or those that
    `SSL_CERT_FILE` / `SSL_CERT_DIR` name.

    It is made once per process and shared: reading hundreds of authorities takes tens of milliseconds.
    """
    return _made(httpx, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _made(httpx: ModuleType, file: str | None, directory: str | None) -> ssl.SSLContext:
    context: ssl.SSLContext = httpx.create_ssl_context()  # reads the two variables itself
    return context
