"""Server-sent events, read as the WHATWG's HTML standard says (section 9.2.6)."""

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
        name: its type; `message` where the stream does not say.
        data: its lines, joined.
        id: the last id that the stream has set, this event's or an earlier one's.
    """

    name: str
    data: str = field(repr=False)
    id: str = ""


class EventReader:
    """Makes events of the bytes of a stream, however they are cut.

    Args:
        last_id: the id that the stream goes on from.
        limit: characters of one event, at most.
    """

    def __init__(self, last_id: str = "", limit: int = 1024 * 1024) -> None:
        self.last_id = last_id
        self.retry: float | None = None
        """Seconds that the server asks to wait before coming back."""
        self._limit = limit
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._text = ""
        self._fresh = True
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """The events that end in this chunk.

        Raises:
            SourceResponseError: one is too long.
        """
        text = self._decode(chunk)
        if text and self._fresh:
            self._fresh = False
            text = text.removeprefix("\ufeff")
        if text and self._after_cr:  # of a CR LF that was cut in two
            self._after_cr = False
            text = text.removeprefix("\n")
        if text.endswith("\r"):
            self._after_cr = True
        # Not `splitlines`: it knows more line ends than the standard does.
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
