"""Events of the backplane: changed keys, tags and overlays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..._utils.freeze import thaw

__all__ = ["Event", "Listener", "decode_message", "encode_message"]

EventKind = Literal["keys", "tag", "clear", "overlay", "rekey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of the first level, for all processes.

    Args:
        kind: `keys`: drop these; `tag`: drop what carries it; `clear`: drop everything; `overlay`: lay attributes over
            the one key; `rekey`: move the overlay of the first key to the second one, and drop both.
        namespace: the namespace of the source; other sources' clients ignore the event.
        keys: types and values.
        tag: the tag.
        attributes: the attributes of the overlay.
        until: when the overlay ends, in seconds since the epoch.
    """

    kind: EventKind
    namespace: str
    keys: tuple[tuple[str, str], ...] = ()
    tag: str = ""
    attributes: Mapping[str, object] | None = None
    until: float = 0.0

    def __repr__(self) -> str:
        return f"<Event {self.kind}, {len(self.keys)} keys>"


class Listener(Protocol):
    """The backplane's interface to the first level of one client. The backplane's thread calls all methods."""

    @property
    def namespace(self) -> str:
        """The namespace of the client's source."""
        ...

    def after_fork(self) -> None:
        """Clear the first level of a forked child, which other processes do not know."""
        ...

    def apply(self, event: Event) -> None:
        """Apply a change announced by any process."""
        ...

    def drop(self) -> None:
        """Clear the first level after a missed message."""
        ...

    def connected_until(self, until: float) -> None:
        """Set until when (on the monotonic clock) entries may be served; after that, only recently loaded ones."""
        ...


def encode_message(epoch: str, sequence: int, origin: str, events: list[Event]) -> bytes:
    """Encode the events of one message."""
    content: list[dict[str, Any]] = [
        {
            "kind": event.kind,
            "namespace": event.namespace,
            "keys": event.keys,
            "tag": event.tag,
            "attributes": None if event.attributes is None else thaw(event.attributes),
            "until": event.until,
        }
        for event in events
    ]
    message = [epoch, sequence, origin, content]
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), default=str).encode()


def decode_message(data: bytes) -> tuple[str, int, str, list[Event]]:
    """Decode a message: its epoch and sequence number in it, the member that sent it, and its events."""
    epoch, sequence, origin, content = json.loads(data)
    events = [Event(**(each | {"keys": tuple((t, v) for t, v in each["keys"])})) for each in content]
    return epoch, sequence, origin, events
