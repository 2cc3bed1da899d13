"""Listening sockets."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import sys
from typing import Any

from ..._utils.validation import check_int
from ...errors import ConfigurationError

__all__ = ["bind", "listen", "on_loopback", "url_of"]


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket without listening: connections are refused until `listen`.

    Bind before any long work, so that a taken port is reported immediately.

    Raises:
        ConfigurationError: the address cannot be bound; the message has the reason and the remedy.
    """
    check_int("port", port, least=0, most=65_535)
    problem = ""
    found: list[Any] = []
    with contextlib.suppress(socket.gaierror, UnicodeError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    if not found:
        raise ConfigurationError(
            f"the host {host!r} is not an address of this machine; 127.0.0.1 is this machine alone, 0.0.0.0 all"
        )
    family, _, _, _, address = found[0]
    # Pass TCP explicitly: asyncio disables Nagle's algorithm only then, and each response would be delayed by 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # on Windows this would allow two servers on one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        problem = _problem(error, host, port)
    if problem:
        listener.close()
        raise ConfigurationError(problem)
    return listener


def listen(listener: socket.socket) -> None:
    """Start listening on a bound socket.

    Raises:
        ConfigurationError: another process is listening on the port.
    """
    problem = ""
    try:
        listener.listen(2048)
    except OSError as error:
        problem = _problem(error, *listener.getsockname()[:2])
    if problem:
        raise ConfigurationError(problem)


def on_loopback(host: str) -> bool:
    """Return whether a host is the loopback interface."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _problem(error: OSError, host: str, port: int) -> str:
    return {
        errno.EADDRINUSE: f"port {port} on {host} is taken; stop what listens there or choose another port",
        errno.EACCES: f"port {port} needs special privileges; choose one from 1024 on",
        errno.EADDRNOTAVAIL: f"the host {host!r} is not an address of this machine",
    }.get(error.errno or 0, f"port {port} on {host} cannot be listened on: {error.strerror}")


def url_of(listener: socket.socket) -> str:
    """Return the base URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
