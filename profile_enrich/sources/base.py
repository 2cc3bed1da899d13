"""The `ProfileSource` protocol and its result types."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from .._utils.deadline import Deadline
from ..profile import ProfileKey, Record
from .freshness import Freshness, Validators

__all__ = [
    "BatchSource",
    "ChangeBatch",
    "ChangeSource",
    "Excluded",
    "Found",
    "Freshness",
    "LocalSource",
    "NotFound",
    "NotModified",
    "ProfileSource",
    "SourceResult",
    "Validators",
    "WarmUpSource",
]


_SILENT = Freshness()


@dataclass(frozen=True, slots=True)
class Found:
    """The vendor has the record. `record.truncated` is true if the vendor cut off attributes.

    Args:
        record: the record's attributes.
        freshness: the vendor's caching headers.
        tags: names that invalidate this entry together with others.
    """

    record: Record
    freshness: Freshness = field(default=_SILENT)
    tags: frozenset[str] = field(default=frozenset(), repr=False)  # tags may hold an id


@dataclass(frozen=True, slots=True)
class NotFound:
    """The vendor has no such record."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """The vendor withholds the record (opt-out, consent filter). It is cached as missing; no profile is attached."""


@dataclass(frozen=True, slots=True)
class NotModified:
    """The cached record is still current (HTTP 304): its expiry is renewed.

    Args:
        freshness: how long the vendor allows the record to be kept.
    """

    freshness: Freshness = field(default=_SILENT)


SourceResult = Found | NotFound | Excluded | NotModified


@runtime_checkable
class ProfileSource(Protocol):
    """A source of profiles, such as a vendor's API.

    A source opens no socket and binds to no event loop before its first `fetch`, and works on every loop that calls it.
    `fetch` runs in a separate task, so a cancelled request does not cancel it.
    """

    @property
    def name(self) -> str:
        """The vendor in one lower-case word, shown in statuses and metrics."""
        ...

    @property
    def namespace(self) -> str:
        """The cache namespace of this source: vendor, base URL, tenant, entity. Never a secret."""
        ...

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Fetch one profile from the vendor.

        Args:
            key: the key to look up.
            deadline: the deadline for the whole call: token, name resolution, retries and body.
            validators: those of the cached copy; a source without conditional requests ignores them.

        Raises:
            InvalidKeyError: the source cannot look this key up; no call was made.
            ConfigurationError: the entity, index or credentials are set up wrong.
            SourceError: the source failed; the subclass says how. The message holds no identifier, value or secret.
        """
        ...

    async def aclose(self) -> None:
        """Close what the source opened. The next use opens it again."""
        ...


@runtime_checkable
class WarmUpSource(ProfileSource, Protocol):
    """A source that can connect before the first lookup."""

    async def warm_up(self, *, deadline: Deadline) -> None:
        """Open the connection and fetch what every lookup needs, such as a token or the id of an entity.

        Raises:
            ConfigurationError, SourceError: as `fetch`.
        """
        ...


@runtime_checkable
class BatchSource(ProfileSource, Protocol):
    """A source that can fetch many profiles in one call."""

    @property
    def batch_size(self) -> int:
        """The largest number of keys in one call."""
        ...

    async def fetch_many(self, keys: Sequence[ProfileKey], *, deadline: Deadline) -> Mapping[ProfileKey, SourceResult]:
        """Fetch up to `batch_size` different profiles.

        Returns:
            A result for each key.

        Raises:
            SourceError: as `fetch`; the whole batch fails.
        """
        ...


@runtime_checkable
class LocalSource(ProfileSource, Protocol):
    """A source that reads many profiles from this machine without waiting."""

    def local_reader(self) -> Callable[[Sequence[str]], Mapping[str, Mapping[str, object]]] | None:
        """Return a function that maps primary ids to the attributes of the records found.

        The function raises `SourceError` when one of the records cannot be read.

        Returns:
            The function; `None` if this source supports only single lookups.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """One message of a change feed. The first message of a stream has no keys: it confirms that the stream is open.

    Args:
        keys: the records that were changed or deleted.
        reset: true if more changed than the message can list.
        id: the position in the feed, for resuming after an interruption.
        retry: the requested delay before reconnecting, in seconds.
    """

    keys: tuple[ProfileKey, ...] = field(default=(), repr=False)
    reset: bool = False
    id: str = ""
    retry: float | None = None


@runtime_checkable
class ChangeSource(ProfileSource, Protocol):
    """A source with a change feed."""

    def changes(self, after: str | None = None) -> AsyncGenerator[ChangeBatch]:
        """Stream the changes from now on, or since `after`, until the stream ends. Call it again to reconnect.

        Args:
            after: the `id` of the last message that was processed.

        Raises:
            SourceError: as `fetch`. `SourceRequestError` with status 404 means that there is no feed.
        """
        ...
