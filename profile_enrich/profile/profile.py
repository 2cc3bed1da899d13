"""`Profile`: one request's view of a record."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .._utils.freeze import thaw
from .._utils.frozen_types import FrozenDict
from .._utils.model_conversion import Problems, convert, mismatch
from ..errors import ConfigurationError, ProfileEnrichError
from .key import ProfileKey
from .record import Record
from .status import Reason, Status

__all__ = ["Profile", "pending", "seal"]

T = TypeVar("T")

_NOTHING = FrozenDict()

_DIGEST_KEY = os.urandom(32)
_unresolved = itertools.count(1)


class _Facts:
    """The immutable result of a lookup, shared by all profiles that are views of it."""

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

    def person(self) -> tuple[str, str, str, str] | None:
        """Return the identity of the profile: source, tenant, key and the vendor's id; `None` for an anonymous one."""
        record, key = self.record, self.key
        if record is None and key is None:
            return None
        source, vendor_id = ("", "") if record is None else (record.namespace or record.source, record.id or "")
        if key is not None:
            return (source, key.type, key.value, vendor_id)
        if record is not None and not vendor_id:  # made by the user: compared by its values only
            vendor_id = json.dumps(record.attributes, sort_keys=True, default=str)
        return (source, "", "", vendor_id)


_PENDING = _Facts(None, Status.SKIPPED, Reason.NOT_LOOKED_UP, None, None)
_SEALED = _Facts(None, Status.SKIPPED, Reason.SEALED, None, None)


class Profile:
    """The profile of one lookup: read-only, mapping-like. Never `None`; falsy if there is none.

    It has a dictionary's reading methods: `profile["tier"]`, `get`, `keys`, `values`, `items`, `in`, `len`, `==`;
    `dict(profile)` and `{**profile}` work. A missing, excluded or unavailable profile is empty, so `profile.get("tier",
    "guest")` is always safe. Objects and arrays in it are read-only dictionaries and lists; `as_dict()` returns mutable
    copies.

    Reading anything from a profile marks the response as personalised (see `ProfileMiddleware`).

    It is not a `collections.abc.Mapping`, because error trackers and log formatters record the values of every mapping
    in a frame. Its `repr` holds no value and no id, but differs between persons by a keyed digest, because response
    caches use it in their keys.
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
        if record is not None and not isinstance(record, Record):
            raise ConfigurationError(
                f"a Profile is made of a Record: Profile(Record(...)), not {type(record).__name__}"
            )
        self._facts = _Facts(record, status, reason, error, key)
        self._on_read = on_read

    # --- the mapping ------------------------------------------------------------------------------------------------

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes as a read-only dictionary (the same values as the profile itself)."""
        if self._on_read is not None:
            self._on_read()
        record = self._facts.record
        return _NOTHING if record is None else record.attributes

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default if it is missing."""
        # Not through `attributes`, for speed.
        if self._on_read is not None:
            self._on_read()
        record = self._facts.record
        return default if record is None else record.attributes.get(name, default)

    def keys(self) -> KeysView[str]:
        """The names of the attributes."""
        return self.attributes.keys()

    def values(self) -> ValuesView[Any]:
        """The values of the attributes."""
        return self.attributes.values()

    def items(self) -> ItemsView[str, Any]:
        """The attributes as pairs of name and value."""
        return self.attributes.items()

    def __iter__(self) -> Iterator[str]:
        return iter(self.attributes)

    def __len__(self) -> int:
        return len(self.attributes)

    def __contains__(self, name: object) -> bool:
        return name in self.attributes

    def __bool__(self) -> bool:
        return self.found

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.as_dict(), **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self.as_dict()}

    def __eq__(self, other: object) -> bool:
        """Compare with a profile by person and attributes, or with a mapping by its items."""
        if isinstance(other, Profile):
            mine, theirs = self._facts, other._facts
            if mine is _PENDING or theirs is _PENDING:
                return self is other
            same = mine.person() == theirs.person() and mine.reason == theirs.reason
            return same and self.attributes == other.attributes
        return self.attributes == other if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a dictionary's: a memo of one person's answers is no place for it

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
        """How the profile was obtained."""
        self._read()
        return self._facts.status

    @property
    def reason(self) -> Reason | None:
        """Why the profile is empty; `None` if it was found."""
        self._read()
        return self._facts.reason

    @property
    def error(self) -> ProfileEnrichError | None:
        """The error, with `Reason.UNAVAILABLE` or for stale data served while the source fails."""
        self._read()
        return self._facts.error

    @property
    def is_stale(self) -> bool:
        """Whether the data are stale."""
        return self.status is Status.STALE

    @property
    def truncated(self) -> bool:
        """Whether the vendor truncated the attributes."""
        self._read()
        return self._facts.record is not None and self._facts.record.truncated

    @property
    def id(self) -> str | None:
        """The vendor's id of the profile, if any."""
        self._read()
        return None if self._facts.record is None else self._facts.record.id

    @property
    def key(self) -> ProfileKey | None:
        """The key that was looked up; `None` for an anonymous profile."""
        self._read()
        return self._facts.key

    @property
    def source(self) -> str | None:
        """The name of its source."""
        self._read()
        return None if self._facts.record is None else self._facts.record.source

    @property
    def age(self) -> float | None:
        """Seconds since the record was loaded; `None` without a record."""
        self._read()
        return None if self._facts.record is None else max(0.0, time.time() - self._facts.record.loaded_at)

    # --- copies -----------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Return a plain, JSON-serializable copy of the attributes; `{}` without a record.

        It is not called `to_dict`, because tracing tools call a method of that name on handlers' arguments.
        """
        return cast("dict[str, Any]", thaw(self.attributes))

    def as_model(self, model: type[T]) -> T:
        """Convert the attributes to an object of a dataclass, a pydantic model or a msgspec struct.

        For a dataclass, attributes without a field are ignored, and types are not checked; pydantic (models and
        dataclasses) and msgspec follow the class's settings.

        Raises:
            ModelMismatch: the attributes do not fit. It lists paths and problems without values (the library's own
                error quotes them, so it is not chained).
            ConfigurationError: the class is of another kind.
        """
        made: tuple[T, Problems] = convert(self.attributes, model)
        if made[1]:  # raised here, where no local variable holds a value
            raise mismatch(model, made[1])
        return made[0]

    def detached(self) -> Profile:
        """Return a copy of the profile that is not sealed at the end of the request.

        Use it for work after the response, such as a background task. `copy.copy` and `copy.deepcopy` do the same.
        """
        self._read()
        return _detached(self._facts)

    def __copy__(self) -> Profile:
        return self.detached()

    def __deepcopy__(self, memo: dict[int, Any]) -> Profile:
        return self.detached()

    def __reduce__(self) -> tuple[Any, ...]:
        self._read()
        facts = self._facts
        unique = next(_unresolved) if facts is _PENDING else 0  # as in `repr`: some caches use the pickle as their key
        return (_restored, (facts.record, facts.status, facts.reason, facts.key, unique))

    if not TYPE_CHECKING:  # otherwise type checkers would accept any name

        def __getattr__(self, name: str) -> Any:
            # FastAPI reads return values in this way, and pydantic would silently use defaults for missing attributes.
            caller = str(sys._getframe(1).f_globals.get("__name__"))
            if not name.startswith("_") and caller.startswith(("fastapi.", "pydantic.")):
                raise ConfigurationError(
                    "a profile is read by its items and not by Python attributes: return profile.as_model(...) or "
                    "profile.as_dict()"
                )
            raise AttributeError(f"a Profile has no attribute {name!r}: profile[{name!r}] is the customer's")

    # --- what others show of it -------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        facts = self._facts
        if facts is _PENDING:  # unique, so that a cache with this key does not serve it to another person
            return f"<Profile not looked up yet, #{next(_unresolved)}>"
        self._read()  # anything derived from this text, such as a cache key, belongs to this person
        person = facts.person()
        parts = [facts.status.value]
        if facts.reason is not None:
            parts.append(facts.reason.value)
        if facts.record is not None:
            parts.append(f"{len(facts.record.attributes)} attributes")
        if person is not None:
            text = "\0".join(f"{len(part)}:{part}" for part in person).encode("utf-8", "surrogatepass")
            parts.append(f"#{hashlib.blake2b(text, digest_size=8, key=_DIGEST_KEY).hexdigest()}")
        return f"<Profile {', '.join(parts)}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Return the pydantic schema: accept a `Profile`, and serialize its attributes."""
        from pydantic_core import core_schema  # only pydantic calls this

        return core_schema.is_instance_schema(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.as_dict, return_schema=core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": True, "title": "Profile"}


_new = Profile.__new__


def pending(on_read: Callable[[], None]) -> Profile:
    """Return the empty profile of a request before its lookup."""
    profile = _new(Profile)
    profile._facts = _PENDING
    profile._on_read = on_read
    return profile


def seal(profile: Profile, on_read: Callable[[], None]) -> None:
    """Empty a profile permanently, with `Reason.SEALED`."""
    profile._facts = _SEALED
    profile._on_read = on_read


def _detached(facts: _Facts) -> Profile:
    profile = _new(Profile)
    profile._facts = facts
    profile._on_read = None
    return profile


def _restored(
    record: Record | None, status: Status, reason: Reason | None, key: ProfileKey | None, unique: int
) -> Profile:
    """Restore a pickled profile."""
    return Profile(record, status=status, reason=reason, key=key)
