"""Parser for server-sent events (WHATWG HTML standard, section 9.2.6)."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...errors import SourceResponseError

__all__ = ["EventReader", "ServerEvent"]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event.

    Args:
        name: the event type; `message` by default.
        data: the data lines, joined by newlines.
        id: the last event id of the stream, set by this event or an earlier one.
    """

    name: str
    data: str = field(repr=False)
    id: str = ""


class EventReader:
    """Parse the chunks of a stream into events.

    Args:
        last_id: the event id at which the stream resumes.
        limit: the largest event, in characters.
    """

    def __init__(self, last_id: str = "", limit: int = 1024 * 1024) -> None:
        self.last_id = last_id
        self.retry: float | None = None
        """The requested delay before reconnecting, in seconds."""
        self._limit = limit
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._text = ""
        self._fresh = True
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Return the events that this chunk completes.

        Raises:
            SourceResponseError: an event is too long.
        """
        text = self._decode(chunk)
        if text and self._fresh:
            self._fresh = False
            text = text.removeprefix("\ufeff")
        if text and self._after_cr:  # the LF of a CR LF split over two chunks
            self._after_cr = False
            text = text.removeprefix("\n")
        if text.endswith("\r"):
            self._after_cr = True
        # `splitlines` would split at more characters than the standard allows.
        *lines, self._text = (self._text + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if self._size + len(self._text) > self._limit:
            raise SourceResponseError("an event of the change feed is too long")
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._size += len(value) + 1
            if self._size > self._limit:
                raise SourceResponseError("an event of the change feed is too long")
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self.last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value[:9]) / 1000
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self._size = "", [], 0
        return ServerEvent(name, "\n".join(data), self.last_id) if data else None
