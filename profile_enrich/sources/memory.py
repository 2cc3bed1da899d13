"""In-memory source: profiles from a mapping or a function, for tests, prototypes and custom backends."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from .._utils.deadline import Deadline
from .._utils.hidden_frames import hide_frames
from .._utils.validation import check_text
from ..errors import ConfigurationError
from ..profile import ProfileKey
from .base import Excluded, Found, NotFound, NotModified, SourceResult, Validators
from .record_from_json import make_record

__all__ = ["MemorySource"]

Attributes: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = Attributes | SourceResult | None
Lookup: TypeAlias = Callable[[ProfileKey], Answer | Awaitable[Answer]]


class MemorySource:
    """Look up profiles in a mapping, or by calling a function.

    ```python
    MemorySource({"u1": {"tier": "gold"}, ("email", "a@b.example"): {"tier": "gold"}})
    MemorySource(lambda key: database.load(key.value))      # or an async function
    ```

    Args:
        profiles: attributes by primary id or by `(type, value)`; the mapping is not copied, so the next lookup sees
            later changes. Or a function, synchronous or asynchronous, that takes a `ProfileKey` and returns the
            attributes, `None` for a missing profile, or a result type of `profile_enrich.sources.base`. A synchronous
            function runs on the event loop and must not block.
        name: the name in statuses and metrics. Sources with different data need different names.

    Raises:
        ConfigurationError: `profiles` is neither a mapping nor a function.
    """

    # Some error trackers walk every `__dict__`, and some every slot: so none holds the mapping, only its methods.
    __slots__ = ("__weakref__", "_count", "_get", "_lookup", "_name", "calls")

    def __init__(
        self,
        profiles: Mapping[Any, Attributes] | Lookup | None = None,
        *,
        name: str = "memory",
    ) -> None:
        self._name = check_text("name", name)
        self._lookup: Lookup | None = None
        self._use({})
        if isinstance(profiles, Mapping):
            self._use(profiles)  # pyright: ignore[reportUnknownArgumentType]  # a value of the user's
        elif callable(profiles):
            self._lookup = profiles
        elif profiles is not None:
            raise ConfigurationError("profiles must be a mapping of attributes by id, or a function of the key")
        self.calls = 0
        """The number of lookups so far."""

    def _use(self, profiles: Mapping[Any, Attributes]) -> None:
        self._get, self._count = profiles.get, profiles.__len__

    @property
    def name(self) -> str:
        """The name that was passed to the source."""
        return self._name

    @property
    def namespace(self) -> str:
        """The name that was passed to the source."""
        return f"memory|{self._name}"

    @hide_frames
    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Look up one profile; see `ProfileSource.fetch`. An exception of the function propagates unchanged.

        Raises:
            ConfigurationError: the function returned a value of another type.
        """
        self.calls += 1
        answer: Any = self._stored(key) if self._lookup is None else self._lookup(key)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is None:
            return NotFound()
        if isinstance(answer, Found | NotFound | Excluded | NotModified):
            return answer
        if not isinstance(answer, Mapping):
            raise ConfigurationError(
                f"profiles: the function returned {type(answer).__name__}, not a mapping, None or a result"
            )
        return Found(make_record(cast("Attributes", answer), id=key.value, source=self._name))

    def local_reader(self) -> Callable[[Sequence[str]], Mapping[str, Mapping[str, object]]] | None:
        """Return a reader of the mapping; `None` for a function. See `LocalSource`."""
        return self._read if type(self) is MemorySource and self._lookup is None else None

    def _read(self, ids: Sequence[str]) -> dict[str, Attributes]:
        self.calls += len(ids)
        found = ((each, self._stored(ProfileKey(each))) for each in ids)
        return {each: attributes for each, attributes in found if attributes is not None}

    def _stored(self, key: ProfileKey) -> Attributes | None:
        found = self._get((key.type, key.value))
        return self._get(key.value) if found is None and key.type == "id" else found

    async def aclose(self) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        what = "a function" if self._lookup is not None else f"{self._count()} profiles"
        return f"<MemorySource {self._name!r}, {what}>"
