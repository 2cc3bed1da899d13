"""Errors of failed connections, without the HTTP client's own text, which may quote the URL."""

from __future__ import annotations

import socket
import ssl
from typing import cast

from ...errors import SourceConnectionError, SourceResponseError, SourceTimeout

__all__ = ["connection_failed", "cut_short", "not_connected", "timed_out", "unexpected"]

_STEPS = 10


def timed_out(seconds: float) -> SourceTimeout:
    """Return the error of a passed deadline; `seconds` is its original length."""
    return SourceTimeout(f"the source gave no whole answer within {seconds:g} s")


def cut_short() -> SourceResponseError:
    """Return the error of an incomplete response."""
    return SourceResponseError("the source's answer was cut short")


def not_connected(error: BaseException) -> SourceConnectionError:
    """Return the error of a failed connection attempt, with the reason found in the causes of `error`."""
    return SourceConnectionError(f"no connection to the source: {_reason(error, _STEPS)}")


def unexpected(error: BaseException) -> SourceConnectionError:
    """Return the error of an undocumented exception, naming only its class, since its text may hold the URL."""
    return SourceConnectionError(f"the HTTP client failed ({type(error).__name__})")


def connection_failed(error: BaseException) -> SourceConnectionError:
    """Return the error of a connection that broke before the response began."""
    if _reason(error, _STEPS) != _UNKNOWN:
        return not_connected(error)
    return SourceConnectionError("the source closed the connection before it answered")


_UNKNOWN = "the connection failed"


def _reason(error: BaseException | None, steps: int) -> str:
    if error is None or steps == 0:
        return _UNKNOWN
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its TLS certificate was not accepted; check the base URL, the clock and the certificate authority"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed; check that the base URL's scheme and port are right"
    if isinstance(error, socket.gaierror):
        return "its host name was not resolved; check the base URL and the network"
    if isinstance(error, ConnectionRefusedError):
        return "refused; check that it runs and that host and port are right"
    inner: list[BaseException | None] = [error.__cause__, error.__context__]
    if isinstance(error, BaseExceptionGroup):
        inner.extend(cast("tuple[BaseException, ...]", error.exceptions))
    for cause in inner:
        reason = _reason(cause, steps - 1)
        if reason != _UNKNOWN:
            return reason
    return _UNKNOWN
