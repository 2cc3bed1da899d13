"""Outbox: unacknowledged events, kept while the server is unavailable."""

from __future__ import annotations

import threading
from collections import Counter, deque
from concurrent.futures import Future

from .backplane_events import Event

__all__ = ["Batch", "Outbox"]

MOST_EVENTS = 10_000
"""The largest number of events kept while the server is unavailable; beyond that, one clear event replaces them."""

MOST_KEYS = 250
"""The largest number of keys in a message."""


class Batch:
    """The events of one message."""

    __slots__ = ("acknowledged", "events", "fenced", "weight")

    def __init__(self, events: list[Event], weight: int) -> None:
        self.events = events
        self.weight = weight
        """How many calls of `put` they represent."""
        self.fenced = False
        self.acknowledged = False


class Outbox:
    """A thread-safe queue of events whose senders can wait for the acknowledgement."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[tuple[Event, int]] = deque()
        """Each event with the number of `put` calls that it represents."""
        self._keys: Counter[tuple[str, str, str]] = Counter()
        self._wide = 0
        self._put = 0
        self._done = 0
        self._sent: deque[Batch] = deque()
        """What was taken, from the first one without acknowledgement."""
        self._repeated: deque[Batch] = deque()
        self._waiting: list[tuple[int, Future[None]]] = []

    def put(self, event: Event) -> None:
        """Add an event."""
        with self._lock:
            self._put += 1
            if len(self._events) < MOST_EVENTS:
                self._events.append((event, 1))
                self._count(event, 1)
                return
            dropped = [each for each, _ in self._events]
            weight = 1 + sum(weight for _, weight in self._events)
            for each in dropped:
                self._count(each, -1)
            spaces = sorted({each.namespace for each in (*dropped, event)})
            weights = [weight - len(spaces) + 1] + [1] * (len(spaces) - 1)
            self._events.clear()
            for space, share in zip(spaces, weights, strict=True):
                clearing = Event(kind="clear", namespace=space)
                self._events.append((clearing, share))
                self._count(clearing, 1)

    def take(self) -> Batch | None:
        """Return the events of the next message, if there are any."""
        with self._lock:
            if self._repeated:
                batch = self._repeated.popleft()
            elif self._events:
                events: list[Event] = []
                weight = keys = 0
                while self._events and (not events or keys + len(self._events[0][0].keys) <= MOST_KEYS):
                    event, share = self._events.popleft()
                    events.append(event)
                    weight += share
                    keys += len(event.keys)
                batch = Batch(events, weight)
            else:
                return None
            self._sent.append(batch)
            return batch

    def repeat(self) -> None:
        """Have `take` return again what has no acknowledgement, and what was sent after it."""
        # The later ones, too: an older event must not have the last word on a key.
        with self._lock:
            for batch in self._sent:
                batch.acknowledged = False
            self._repeated.extendleft(reversed(self._sent))
            self._sent.clear()

    def fenced(self, batch: Batch) -> None:
        """Note that the second level no longer returns old values of these events' keys."""
        with self._lock:
            if not batch.fenced:
                batch.fenced = True
                for event in batch.events:
                    self._count(event, -1)

    def acknowledged(self, batch: Batch) -> None:
        """Note that all processes have applied these events."""
        with self._lock:
            batch.acknowledged = True
            while self._sent and self._sent[0].acknowledged:
                self._done += self._sent.popleft().weight
            ready = [future for ticket, future in self._waiting if ticket <= self._done]
            self._waiting = [each for each in self._waiting if each[0] > self._done]
        for future in ready:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def holds(self, key: tuple[str, str, str]) -> bool:
        """Return whether an event for a key is not fenced yet, so the second level may hold an old value."""
        # Without the lock, because reads of the counters are atomic.
        return self._wide > 0 or (bool(self._keys) and key in self._keys)

    def acknowledgement(self) -> Future[None]:
        """Return a future that completes when all processes have applied the events put so far."""
        future: Future[None] = Future()
        with self._lock:
            if self._done < self._put:
                self._waiting.append((self._put, future))
                return future
        future.set_result(None)
        return future

    @property
    def waiting(self) -> int:
        """The number of unacknowledged events."""
        return self._put - self._done

    def renew_lock(self) -> None:
        """Replace the lock and forget the parent's events in a forked child."""
        Outbox.__init__(self)  # the parent announces its own events

    def _count(self, event: Event, step: int) -> None:
        if event.kind in ("tag", "clear"):
            self._wide += step
            return
        for type_, value in event.keys:
            key = (event.namespace, type_, value)
            self._keys[key] += step
            if not self._keys[key]:
                del self._keys[key]
