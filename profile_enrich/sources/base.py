"""The protocol that every source follows, and the results that vendors' answers are mapped onto."""

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
    """The record. `record.truncated` says that the vendor cut attributes off.

    Args:
        record: what the vendor holds.
        freshness: what it said about keeping it.
        tags: names under which it can be invalidated together with others.
    """

    record: Record
    freshness: Freshness = field(default=_SILENT)
    tags: frozenset[str] = field(default=frozenset(), repr=False)  # they may hold an id


@dataclass(frozen=True, slots=True)
class NotFound:
    """The vendor says that there is no such record."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """The vendor withholds the record (opt-out, consent filter). It is cached as a missing one; nothing is attached."""


@dataclass(frozen=True, slots=True)
class NotModified:
    """The cached record is still current (HTTP 304): it is renewed, not replaced.

    Args:
        freshness: how long the vendor allows the record to be kept.
    """

    freshness: Freshness = field(default=_SILENT)


SourceResult = Found | NotFound | Excluded | NotModified


@runtime_checkable
class ProfileSource(Protocol):
    """Where profiles come from.

    A source holds nothing that is bound to a loop or a socket until its first `fetch`, and works on every loop that
    calls it. `profile_enrich` calls it from a task of its own that no request can cancel.
    """

    @property
    def name(self) -> str:
        """The vendor, in one lower-case word: what statuses and metrics show."""
        ...

    @property
    def namespace(self) -> str:
        """What separates this source's entries from all others': vendor, base URL, tenant, entity. Never a secret."""
        ...

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Ask the vendor for one profile.

        Args:
            key: what to look up.
            deadline: by when all of it (token, resolution, retries, body) must be done.
            validators: of the copy at hand; a source that cannot make conditional requests ignores them.

        Raises:
            InvalidKeyError: the source cannot look this key up; no call was made.
            ConfigurationError: the entity, index or credentials are set up wrong.
            SourceError: a subclass says how the source failed. The message holds no identifier, value or secret.
        """
        ...

    async def aclose(self) -> None:
        """Free what the source itself opened. The next use opens it again."""
        ...


@runtime_checkable
class WarmUpSource(ProfileSource, Protocol):
    """A source that can be connected to before the first lookup."""

    async def warm_up(self, *, deadline: Deadline) -> None:
        """Open the connection and fetch what every lookup needs, such as a token or the id of an entity.

        Raises:
            ConfigurationError, SourceError: as `fetch`.
        """
        ...


@runtime_checkable
class BatchSource(ProfileSource, Protocol):
    """A source that can be asked for many profiles in one call."""

    @property
    def batch_size(self) -> int:
        """How many keys one call takes at most."""
        ...

    async def fetch_many(self, keys: Sequence[ProfileKey], *, deadline: Deadline) -> Mapping[ProfileKey, SourceResult]:
        """Ask the vendor for up to `batch_size` different profiles.

        Returns:
            An answer for each key.

        Raises:
            SourceError: as `fetch`; it fails the whole batch.
        """
        ...


@runtime_checkable
class LocalSource(ProfileSource, Protocol):
    """A source that can answer from this machine without waiting, for many keys at a time."""

    def local_reader(self) -> Callable[[Sequence[str]], Mapping[str, Mapping[str, object]]] | None:
        """Return a function that gives the attributes of those primary ids that have a record.

        The function raises `SourceError` when one of the records cannot be read.

        Returns:
            The function; `None` when this source has to be asked key by key.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """What a change feed says. The first thing that a stream says names no keys: it is open now.

    Args:
        keys: these records changed, or are gone.
        reset: more changed than can be named.
        id: how far the feed has come; it goes on from there after an interruption.
        retry: seconds that the source asks to wait before coming back after the stream ended.
    """

    keys: tuple[ProfileKey, ...] = field(default=(), repr=False)
    reset: bool = False
    id: str = ""
    retry: float | None = None


@runtime_checkable
class ChangeSource(ProfileSource, Protocol):
    """A source that tells which records change."""

    def changes(self, after: str | None = None) -> AsyncGenerator[ChangeBatch]:
        """What changes from now on, or since `after`, until the stream ends; then it can be asked for again.

        Args:
            after: `Changes.id` of the last one that was dealt with.

        Raises:
            SourceError: as `fetch`. `SourceRequestError` with status 404: the vendor has no such feed.
        """
        ...
