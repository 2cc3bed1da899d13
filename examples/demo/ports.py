"""The two ports of the demo, from the environment."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from .process import HOST, DemoError


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two processes listen."""

    api: int
    shop: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Ports:
        """Read `API_PORT` and `SHOP_PORT`, and check that both are free.

        Raises:
            DemoError: one is no port number, is taken, or both are the same.
        """
        ports = cls(_port(environment, "API_PORT", 8787), _port(environment, "SHOP_PORT", 8000))
        if ports.api == ports.shop:
            raise DemoError(f"API_PORT and SHOP_PORT are both {ports.api}; each process needs a port of its own.")
        for name, port in (("API_PORT", ports.api), ("SHOP_PORT", ports.shop)):
            if not _is_free(port):
                raise DemoError(
                    f"Port {port} is taken. Stop what listens there, or choose another: make demo {name}={port + 1}"
                )
        return ports


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise DemoError(f"{name} must be a port number from 1 to 65535, not {text!r}.")
    return int(text)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
