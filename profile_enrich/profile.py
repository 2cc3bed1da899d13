"""What is looked up, what is cached, and what a handler sees.

`ProfileKey` is the question, `Record` the frozen answer that all requests share, `Profile` the small view of it that is
made for one request.
"""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar, cast

from ._utils.frozen import freeze, thaw
from ._utils.models import convert
from .errors import InvalidKeyError, ProfileEnrichError

__all__ = ["MAX_KEY_BYTES", "Profile", "ProfileKey", "Reason", "Record", "Status"]

T = TypeVar("T")

MAX_KEY_BYTES = 2048
"""The longest identifier that is looked up, in bytes of UTF-8. Longer ones do not fit every vendor's URL."""

MAX_TYPE_LENGTH = 256
"""The longest name of an identifier's type, in characters."""

_SALT = os.environ.get("PROFILE_ENRICH_LOG_SALT", "").encode() or os.urandom(16)


class Status(StrEnum):
    """How a lookup was answered. Each lookup has exactly one."""

    HIT = "hit"
    """From the cache, fresh."""
    STALE = "stale"
    """From the cache, past its soft expiry; a refresh was started or is throttled."""
    NEGATIVE = "negative"
    """From the cache: the source said a moment ago that there is none."""
    MISS = "miss"
    """The source was asked, and answered."""
    COALESCED = "coalesced"
    """Another lookup of the same key was already asking the source; its answer was shared."""
    TIMEOUT = "timeout"
    """The budget ran out first."""
    ERROR = "error"
    """The source failed and nothing stale was at hand."""
    SKIPPED = "skipped"
    """No lookup was made: nobody in session, no consent, an excluded path, or the own rate limit is used up."""


class Reason(StrEnum):
    """Why a profile is empty."""

    NOT_FOUND = "not_found"
    """The source has no such profile."""
    EXCLUDED = "excluded"
    """The vendor excludes it (opt-out, consent filter)."""
    ANONYMOUS = "anonymous"
    """Nobody is in session."""
    NO_CONSENT = "no_consent"
    """The person in session did not consent to the lookup."""
    NOT_LOOKED_UP = "not_looked_up"
    """The path is excluded, or the middleware is not installed."""
    UNAVAILABLE = "unavailable"
    """Time ran out or the source failed; `profile.error` says which."""


class ProfileKey:
    """The question of a lookup: the type of an identifier and its value.

    Args:
        value: the identifier exactly as the source knows it, 1 to 2,048 bytes of UTF-8. Nothing is trimmed or folded.
        type: the identifier's type: `"id"` (default) is the source's primary key; sources that can look up by other
            attributes take their names, e.g. `"email"`.

    Raises:
        InvalidKeyError: the value is not a string, empty, too long, or not encodable as UTF-8.

    The `repr` shows a salted hash instead of the value. Set `PROFILE_ENRICH_LOG_SALT` to the same secret in all
    processes to correlate their logs; without it each process has a random salt.
    """

    __slots__ = ("_digest", "_hash", "type", "value")

    type: str
    value: str
    _digest: str | None
    _hash: int

    def __init__(self, value: str, type: str = "id") -> None:
        if not isinstance(value, str):
            raise InvalidKeyError(
                f"a profile key must be a string, not {_type_name(value)}; pass str(value) if its text form is the id"
            )
        if not isinstance(type, str) or not type or len(type) > MAX_TYPE_LENGTH or not type.isprintable():
            raise InvalidKeyError("the type of a profile key must be a short name such as 'id' or 'email'")
        if not value:
            raise InvalidKeyError("a profile key must not be empty")
        if len(value) > MAX_KEY_BYTES or not value.isascii():
            try:
                size = len(value.encode())
            except UnicodeEncodeError:
                size = -1
            if size < 0:  # outside the handler: the UnicodeEncodeError quotes the value
                raise InvalidKeyError("a profile key must be valid Unicode; this one holds a lone surrogate")
            if size > MAX_KEY_BYTES:
                raise InvalidKeyError(
                    f"a profile key has at most {MAX_KEY_BYTES:,} bytes of UTF-8; this one has {size:,}"
                )
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "type", type)
        object.__setattr__(self, "_hash", hash((value, type)))
        object.__setattr__(self, "_digest", None)

    @classmethod
    def of(cls, key: str | ProfileKey) -> ProfileKey:
        """The key itself, or a primary key made of a string."""
        return key if isinstance(key, ProfileKey) else cls(key)

    def digest(self) -> str:
        """A salted hash of type and value, 12 hex characters: what logs, metrics and hooks may show."""
        digest = self._digest
        if digest is None:
            text = f"{self.type}\0{self.value}".encode()
            digest = hashlib.blake2b(text, digest_size=6, key=_SALT[:64]).hexdigest()
            object.__setattr__(self, "_digest", digest)
        return digest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProfileKey):
            return NotImplemented
        return self.value == other.value and self.type == other.type

    def __hash__(self) -> int:
        return self._hash

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"ProfileKey is immutable; cannot set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"ProfileKey is immutable; cannot delete {name}")

    def __reduce__(self) -> tuple[object, ...]:
        return (ProfileKey, (self.value, self.type))

    def __repr__(self) -> str:
        return f"<ProfileKey {self.type}:#{self.digest()}>"


def _type_name(value: object) -> str:
    return type(value).__name__


class Record:
    """What a source returned: attributes, frozen once when they are loaded and shared by all who read them.

    Args:
        attributes: the vendor's attributes, JSON-like. They are copied and frozen.
        id: the vendor's own id of the profile, where it has one.
        source: the name of the source, e.g. `"census"`.
        truncated: the vendor cut attributes off.
        loaded_at: when it was loaded, in seconds since the epoch; now when not given.

    Raises:
        ValueError: the attributes are nested deeper than 64 levels.
    """

    __slots__ = ("attributes", "id", "loaded_at", "size", "source", "truncated")

    def __init__(
        self,
        attributes: Mapping[str, object],
        *,
        id: str | None = None,
        source: str = "",
        truncated: bool = False,
        loaded_at: float | None = None,
    ) -> None:
        frozen, size = freeze(attributes)
        self.attributes: Mapping[str, Any] = cast("Mapping[str, Any]", frozen)
        self.id = id
        self.source = source
        self.truncated = truncated
        self.loaded_at = time.time() if loaded_at is None else loaded_at
        self.size = size + 200  # the record and its cache entry
        """Roughly the bytes of memory that it takes."""

    def renewed(self) -> Record:
        """The same attributes, confirmed by the source just now."""
        record = copy.copy(self)
        record.loaded_at = time.time()
        return record

    def overlaid(self, attributes: Mapping[str, object]) -> Record:
        """The same record with some attributes added or replaced."""
        record = copy.copy(self)
        record.attributes = MappingProxyType({**self.attributes, **attributes})
        return record

    def __repr__(self) -> str:
        return f"<Record of {self.source or 'unnamed source'}, {len(self.attributes)} attributes>"


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class _Facts:
    """What a lookup found out. Shared by all profiles that are views of the same answer, and never changed."""

    __slots__ = ("error", "key", "reason", "record", "status")

    def __init__(
        self,
        record: Record | None,
        status: Status,
        reason: Reason | None,
        error: ProfileEnrichError | None,
        key: ProfileKey | None,
    ) -> None:
        self.record = record
        self.status = status
        self.reason = reason
        self.error = error
        self.key = key


_PENDING = _Facts(None, Status.SKIPPED, Reason.NOT_LOOKED_UP, None, None)


class Profile(Mapping[str, Any]):
    """The profile of one lookup: a read-only mapping of the attributes. Never `None`; falsy when there is none.

    A profile that was not found, excluded or not available is an empty mapping, so `profile.get("tier", "guest")` is
    always safe. Values that are objects or arrays are read-only mappings and tuples; `to_dict()` gives plain copies.

    Reading anything from a profile marks the response as personalised (see `ProfileMiddleware`).
    """

    __slots__ = ("_facts", "_on_read")

    _facts: _Facts
    _on_read: Callable[[], None] | None

    def __init__(
        self,
        record: Record | None = None,
        *,
        status: Status = Status.SKIPPED,
        reason: Reason | None = None,
        error: ProfileEnrichError | None = None,
        key: ProfileKey | None = None,
        on_read: Callable[[], None] | None = None,
    ) -> None:
        self._facts = _Facts(record, status, reason, error, key)
        self._on_read = on_read

    # --- the mapping ------------------------------------------------------------------------------------------------

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes as a read-only mapping (the same values as the profile itself)."""
        if self._on_read is not None:
            self._on_read()
        record = self._facts.record
        return _NOTHING if record is None else record.attributes

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute, or the default when the profile does not have it."""
        # Not through `attributes`: it is what pages call most.
        if self._on_read is not None:
            self._on_read()
        record = self._facts.record
        return default if record is None else record.attributes.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.attributes)

    def __len__(self) -> int:
        return len(self.attributes)

    def __contains__(self, name: object) -> bool:
        return name in self.attributes

    def __bool__(self) -> bool:
        return self.found

    __hash__ = None  # type: ignore[assignment]  # a mapping with equality by value, like a dict

    # --- what is known about it -------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._on_read is not None:
            self._on_read()

    @property
    def found(self) -> bool:
        """Whether the source has this profile. A profile without a single attribute is found, and truthy."""
        self._read()
        return self._facts.record is not None

    @property
    def status(self) -> Status:
        """How the lookup was answered."""
        self._read()
        return self._facts.status

    @property
    def reason(self) -> Reason | None:
        """Why the profile is empty; `None` when it was found."""
        self._read()
        return self._facts.reason

    @property
    def error(self) -> ProfileEnrichError | None:
        """What went wrong: with `Reason.UNAVAILABLE`, and beside stale data that stand in for a failing source."""
        self._read()
        return self._facts.error

    @property
    def is_stale(self) -> bool:
        """Whether the data are past their soft expiry."""
        return self.status is Status.STALE

    @property
    def truncated(self) -> bool:
        """Whether the vendor cut attributes off."""
        self._read()
        return self._facts.record is not None and self._facts.record.truncated

    @property
    def id(self) -> str | None:
        """The vendor's own id of the profile, where it has one."""
        self._read()
        return None if self._facts.record is None else self._facts.record.id

    @property
    def key(self) -> ProfileKey | None:
        """The key that was looked up; `None` for an anonymous profile."""
        self._read()
        return self._facts.key

    @property
    def source(self) -> str | None:
        """The name of the source that it came from."""
        self._read()
        return None if self._facts.record is None else self._facts.record.source

    @property
    def age(self) -> float | None:
        """Seconds since the source was asked; `None` when there is no record."""
        self._read()
        return None if self._facts.record is None else max(0.0, time.time() - self._facts.record.loaded_at)

    # --- copies -----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """A fresh, plain, JSON-ready copy of the attributes; `{}` when there is no record."""
        return cast("dict[str, Any]", thaw(self.attributes))

    def as_model(self, model: type[T]) -> T:
        """The attributes as an object of the user's class: a dataclass, a pydantic model or a msgspec struct.

        Attributes that a dataclass has no field for are left out, and the types of its fields are not looked at;
        pydantic and msgspec follow the class's own settings.

        Raises:
            ModelMismatch: the attributes do not fit. It says where and what is wrong there, without values (the
                library's own account quotes them, and is therefore not passed on).
            ConfigurationError: the class is none of the three.
        """
        return convert(self.to_dict(), model)

    def __copy__(self) -> Profile:
        return self

    def __repr__(self) -> str:
        # Shows up in logs and debuggers: says how the lookup went, never what the profile holds.
        facts = [self._facts.status.value]
        if self._facts.reason is not None:
            facts.append(self._facts.reason.value)
        if self._facts.record is not None:
            facts.append(f"{len(self._facts.record.attributes)} attributes")
        return f"<Profile {', '.join(facts)}>"


def pending(on_read: Callable[[], None]) -> Profile:
    """The profile of a request whose lookup is still to come. Short: there is one in each request."""
    profile = _new(Profile)
    profile._facts = _PENDING
    profile._on_read = on_read
    return profile


_new = Profile.__new__
