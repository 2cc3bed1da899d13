"""Recorder of a vendor server's calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

__all__ = ["Call", "Recorder"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as received.

    Args:
        method: the method, as sent.
        target: the request target exactly as sent, byte for byte (each byte one character, Latin-1), undecoded.
        path: the target's path, percent-decoded as UTF-8.
        headers: lower-case names; a repeated header's values are joined with `", "`.
        body: the whole body.
        at: the time of receipt, in seconds of `time.monotonic()`.
        connection: the number of its connection, from 1.
    """

    method: str
    target: str
    path: str
    headers: Mapping[str, str] = field(repr=False)  # headers hold credentials
    body: bytes = field(repr=False)
    at: float = field(repr=False)
    connection: int = field(default=0, repr=False)

    @property
    def raw_path(self) -> str:
        """The target's path, undecoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The decoded names and values of the query, in order, including repeated and empty ones."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    @property
    def key(self) -> str | None:
        """The requested identifier: Census's `record_id`, Amperity's profile id or first filter value."""
        for name, value in self.query:
            if name == "record_id" or name.startswith("filter["):
                return value
        parts = self.raw_path.strip("/").split("/")
        if len(parts) >= 3 and parts[-2] == "profiles":
            return unquote(parts[-1])
        return None


class Recorder:
    """Record calls. It is thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[Call] = []
        self._in_flight = 0
        self._max_in_flight = 0
        self._connections = 0
        self._open_connections = 0

    @property
    def calls(self) -> list[Call]:
        """A copy of the calls so far, oldest first."""
        with self._changed:
            return list(self._calls)

    @property
    def call_count(self) -> int:
        """The number of calls."""
        with self._changed:
            return len(self._calls)

    @property
    def in_flight(self) -> int:
        """The number of calls without a finished response."""
        with self._changed:
            return self._in_flight

    @property
    def max_in_flight(self) -> int:
        """The largest number of concurrent calls."""
        with self._changed:
            return self._max_in_flight

    @property
    def connections(self) -> int:
        """The number of connections opened."""
        with self._changed:
            return self._connections

    @property
    def open_connections(self) -> int:
        """The number of connections open now."""
        with self._changed:
            return self._open_connections

    def reset_calls(self) -> None:
        """Clear calls and counters, except for open connections and running calls."""
        with self._changed:
            self._calls.clear()
            self._max_in_flight = self._in_flight
            self._connections = self._open_connections

    def wait_for_calls(self, count: int, timeout: float = 5.0) -> None:
        """Block until this many calls were received.

        Args:
            count: the number of calls since the start or `reset_calls()`.
            timeout: the longest wait, in seconds.

        Raises:
            TimeoutError: fewer calls were received.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._calls) >= count, timeout):
                raise TimeoutError(f"{len(self._calls)} of {count} calls came within {timeout:g} s")

    def wait_until_idle(self, timeout: float = 5.0) -> None:
        """Block until no call is in flight.

        Args:
            timeout: the longest wait, in seconds.

        Raises:
            TimeoutError: some calls are still in flight.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_flight == 0, timeout):
                raise TimeoutError(f"{self._in_flight} calls are still in flight after {timeout:g} s")

    async def calls_reached(self, count: int, within: float = 5.0) -> None:
        """Wait like `wait_for_calls`, without blocking the event loop.

        Args:
            count: the number of calls since the start or `reset_calls()`.
            within: the longest wait, in seconds.

        Raises:
            TimeoutError: fewer calls were received.
        """
        limit = time.monotonic() + within
        while self.call_count < count:
            if time.monotonic() > limit:
                raise TimeoutError(f"{self.call_count} of {count} calls came within {within:g} s")
            await asyncio.sleep(0.002)

    # --- the server's side ------------------------------------------------------------------------------------------

    def _opened(self) -> int:
        with self._changed:
            self._connections += 1
            self._open_connections += 1
            return self._connections

    def _closed(self) -> None:
        with self._changed:
            self._open_connections -= 1
            self._changed.notify_all()

    def _began(self, call: Call) -> None:
        with self._changed:
            self._calls.append(call)
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            self._changed.notify_all()

    def _ended(self) -> None:
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()
