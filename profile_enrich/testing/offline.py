"""Offline source, for tests and for development without a network."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from .._utils.deadline import Deadline
from ..errors import SourceConnectionError, SourceError
from ..profile import ProfileKey, Record
from ..sources.base import Excluded, Found, NotFound, SourceResult, Validators

__all__ = ["OfflineSource", "offline"]


class OfflineSource:
    """A `ProfileSource` that reads from memory, or fails like an unreachable vendor.

    It is a sync and async context manager; leaving it clears profiles and calls.

    Args:
        profiles: attributes by id. With `None` (default), every lookup raises `SourceConnectionError`.
        name: the name in statuses and metrics.
        namespace: the namespace of its cache entries; by default the name.
    """

    def __init__(
        self,
        profiles: Mapping[str, Mapping[str, object]] | None = None,
        *,
        name: str = "offline",
        namespace: str | None = None,
    ) -> None:
        self._profiles: dict[str, Mapping[str, object]] | None = None if profiles is None else dict(profiles)
        self._excluded: set[str] = set()
        self._error: SourceError | None = None
        self._name = name
        self._namespace = name if namespace is None else namespace
        self.calls: list[ProfileKey] = []
        """The keys of all lookups, in order."""

    @property
    def name(self) -> str:
        """The name in statuses and metrics."""
        return self._name

    @property
    def namespace(self) -> str:
        """The namespace of its cache entries."""
        return self._namespace

    def put(self, id: str, attributes: Mapping[str, object]) -> None:
        """Add or replace one profile."""
        if self._profiles is None:
            self._profiles = {}
        self._profiles[id] = attributes
        self._excluded.discard(id)

    def remove(self, id: str) -> None:
        """Remove one profile; it is then not found."""
        if self._profiles is not None:
            self._profiles.pop(id, None)

    def exclude(self, id: str) -> None:
        """Exclude one profile, as a vendor does after an opt-out."""
        self._excluded.add(id)

    def fail(self, error: SourceError | None = None) -> None:
        """Make every following lookup raise this error (default: `SourceConnectionError`), until `heal()`."""
        self._error = SourceConnectionError("the source is offline") if error is None else error

    def heal(self) -> None:
        """End `fail()`."""
        self._error = None

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Read from memory; see `ProfileSource.fetch`.

        Raises:
            SourceError: the one passed to `fail()`, or `SourceConnectionError` without profiles.
        """
        self.calls.append(key)
        if self._error is not None:
            # A new object each time, because a raised one keeps its traceback and the caller's frames.
            error = self._error
            raise type(error)(
                error.message, status=error.status, request_id=error.request_id, retry_after=error.retry_after
            )
        if self._profiles is None:
            raise SourceConnectionError("the source is offline")
        if key.value in self._excluded:
            return Excluded()
        if key.type == "id":
            found = self._profiles.get(key.value)
            return NotFound() if found is None else self._found(key.value, found)
        for id, attributes in self._profiles.items():
            if attributes.get(key.type) == key.value:
                return self._found(id, attributes)
        return NotFound()

    def _found(self, id: str, attributes: Mapping[str, object]) -> Found:
        return Found(Record(attributes, id=id, source=self._name))

    async def aclose(self) -> None:
        """Do nothing."""

    def __enter__(self) -> OfflineSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._profiles = None
        self._excluded.clear()
        self.calls.clear()

    async def __aenter__(self) -> OfflineSource:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, tb)

    def __repr__(self) -> str:
        size = "unreachable" if self._profiles is None else f"{len(self._profiles)} profiles"
        return f"<OfflineSource {self._name}, {size}>"


def offline(
    profiles: Mapping[str, Mapping[str, object]] | None = None,
    *,
    name: str = "offline",
    namespace: str | None = None,
) -> OfflineSource:
    """Make an offline source: `with offline({"u1": {"tier": "gold"}}) as source: ...`.

    Args:
        profiles: attributes by id. With `None`, every lookup raises `SourceConnectionError`.
        name: the name in statuses and metrics.
        namespace: the namespace of its cache entries; by default the name.
    """
    return OfflineSource(profiles, name=name, namespace=namespace)
