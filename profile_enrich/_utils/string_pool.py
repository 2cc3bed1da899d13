"""Pool of short strings, which shares equal values such as `"gold"` between records."""

from __future__ import annotations

import time

__all__ = ["MAX_LENGTH", "StringPool", "shared_strings"]

MAX_LENGTH = 32
"""The longest shared string, in characters. Longer ones are seldom equal."""

MAX_STRINGS = 4096
"""The largest number of strings in the pool."""

SECONDS = 10.0
"""The longest time that the pool keeps a string, in seconds, because it may be personal data, such as a name."""


class StringPool:
    """A bounded pool of strings. It is thread-safe; at worst, a string is stored twice."""

    __slots__ = ("_since", "_strings")

    def __init__(self) -> None:
        self._strings: dict[str, str] = {}
        self._since = 0.0

    def current(self) -> dict[str, str]:
        """Return the pool for one record: `setdefault(text, text)` shares a string. It is replaced when it is full or
        old.
        """
        now = time.monotonic()
        if now - self._since >= SECONDS or len(self._strings) >= MAX_STRINGS:
            self._strings = {}
            self._since = now
        return self._strings

    def clear(self) -> None:
        """Forget all strings."""
        self._strings = {}


shared_strings = StringPool()
