"""Read-only dictionaries and lists whose `repr` holds none of their values."""

from __future__ import annotations

import hashlib
import os
from collections.abc import ItemsView, Iterator, ValuesView
from typing import Any, NoReturn

__all__ = ["FrozenDict", "FrozenList", "Withheld"]

_DIGEST_KEY = os.urandom(32)

_READ_ONLY = "a profile's values are read-only; as_dict() returns a copy that may be changed"


class Withheld:
    """Mixin that hides values from error reporters, debuggers and pretty-printers.

    The hooks replace a reporter's walk through a container: `__sentry_repr__` (Sentry's SDK) and `__rich_repr__`
    (rich). Rollbar, Elastic APM and PostHog have hooks for objects only, and walk through dictionaries and lists.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        # Different for different values, by a digest with a key per process: caches of functions and pages make their
        # keys of the `repr` of arguments.
        plain = super().__repr__()
        digest = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8, key=_DIGEST_KEY).hexdigest()
        return f"<{type(self).__name__}, {len(self)} values, #{digest}>"  # type: ignore[arg-type]  # mixed into containers, which have a length

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return format(repr(self), format_spec)

    def __sentry_repr__(self) -> str:
        return repr(self)

    def __rich_repr__(self) -> Iterator[str]:
        yield f"{len(self)} values"  # type: ignore[arg-type]  # mixed into containers, which have a length

    __rich_repr__.angular = True  # type: ignore[attr-defined]  # an attribute that rich reads of the function

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(_READ_ONLY)


_refused: Any = Withheld._refuse  # typed as `Any`, because it replaces methods with different parameters


class _HiddenItems(ItemsView[str, Any]):
    """A view whose `repr` is that of its dictionary, without values."""

    __slots__ = ()
    _mapping: FrozenDict

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(super(FrozenDict, self._mapping).items())


class _HiddenValues(ValuesView[Any]):
    """A view whose `repr` is that of its dictionary, without values."""

    __slots__ = ()
    _mapping: FrozenDict

    def __iter__(self) -> Iterator[Any]:
        return iter(super(FrozenDict, self._mapping).values())


class FrozenDict(Withheld, dict[str, Any]):
    """A read-only dictionary. It serializes, compares and unpacks as a `dict`; changes raise `TypeError`."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _refused
    update = pop = popitem = clear = setdefault = _refused

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # dictionaries have classes of their own
        """Return a view whose `repr` holds no values."""
        return _HiddenItems(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # as for `items`
        """Return a view whose `repr` holds no values."""
        return _HiddenValues(self)

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (FrozenDict, (dict(self),))


class FrozenList(Withheld, list[Any]):
    """A read-only list. It serializes and compares as a `list`; changes raise `TypeError`."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refused
    append = extend = insert = pop = remove = clear = sort = reverse = _refused

    def __copy__(self) -> FrozenList:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenList:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (FrozenList, (list(self),))
