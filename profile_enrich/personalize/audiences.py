"""Audiences: named conditions on profiles."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, cast

from .._utils.validation import is_number
from ..errors import ConfigurationError, MissingAttribute
from ..profile import Profile

__all__ = ["Audience", "Condition", "Predicate", "gt", "gte", "lt", "lte", "one_of"]

Condition = Callable[[Any], bool]
"""A condition on the value of one attribute."""

Predicate = Callable[[Profile], bool]
"""A condition on a profile."""

Bound = int | float | str | date | datetime


class Audience:
    """A named group of people, defined by conditions on their profiles.

    ```python
    vip = Audience("vip", tier="gold", ltv=gte(500))
    night_owl = Audience("night owl", lambda profile: profile["last_visit_hour"] >= 22)
    ```

    All conditions must hold. A plain value is compared for equality; a condition such as `gte(500)`, or any function of
    the value, is called. Since some vendors send all values as text, a number also matches its text form, and `True`
    matches the text `true`. `None` matches a missing or null attribute.

    Args:
        name: the name in logs, metrics and decisions.
        predicate: a function of the profile; it must hold as well.
        where: conditions for attributes that are not Python identifiers, e.g. `{"Lifetime Value": gte(500)}`.
        **attributes: conditions by attribute.

    Raises:
        ConfigurationError: the name or the conditions are missing.
    """

    __slots__ = ("_conditions", "_predicate", "name")

    def __init__(
        self,
        name: str,
        predicate: Predicate | None = None,
        /,
        *,
        where: Mapping[str, object] | None = None,
        **attributes: object,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError("an audience needs a name, e.g. Audience('vip', tier='gold')")
        if predicate is not None and not callable(predicate):
            raise ConfigurationError(f"the predicate of audience {name!r} must be a function of the profile")
        self.name = name
        self._predicate = predicate
        wanted = {**(where or {}), **attributes}
        self._conditions = {attribute: _condition(value) for attribute, value in wanted.items()}
        if predicate is None and not self._conditions:
            raise ConfigurationError(f"audience {name!r} needs a condition, e.g. tier='gold', or a function")

    def matches(self, profile: Profile) -> bool:
        """Return whether this profile belongs to it.

        Raises:
            MissingAttribute: the profile lacks an attribute of a condition, or its value has another type.
            Exception: an exception of the user's function.
        """
        for name, holds in self._conditions.items():
            value = profile.get(name)
            if value is None and holds is not _absent:
                raise MissingAttribute(f"the profile has no {name!r}")
            if not holds(value):
                return False
        if self._predicate is None:
            return True
        try:
            return bool(self._predicate(profile))
        except KeyError as error:
            lacking = error.args[0] if error.args else None
            if not isinstance(lacking, str) or lacking in profile:
                raise
        # Without its name, which the function may have derived from a value.
        raise MissingAttribute(f"the profile lacks an attribute that the function of audience {self.name!r} reads")

    def __repr__(self) -> str:
        return f"<Audience {self.name}>"


def gte(bound: Bound) -> Condition:
    """Greater than or equal to a number, a text, or a date (also for a value in ISO 8601 form)."""
    return _ordered(operator.ge, bound)


def gt(bound: Bound) -> Condition:
    """Greater or later than."""
    return _ordered(operator.gt, bound)


def lte(bound: Bound) -> Condition:
    """Less than or equal to."""
    return _ordered(operator.le, bound)


def lt(bound: Bound) -> Condition:
    """Less or earlier than."""
    return _ordered(operator.lt, bound)


def one_of(values: Collection[object]) -> Condition:
    """Equal to one of these values; for a list attribute, one of its items is.

    Raises:
        ConfigurationError: the values are a single string, or empty.
    """
    if isinstance(values, str) or not values:
        raise ConfigurationError("one_of takes a collection of values, e.g. one_of({'gold', 'silver'})")
    choices = [_condition(value) for value in values]

    def holds(value: Any) -> bool:
        items = cast("Sequence[object]", value if isinstance(value, list) else (value,))
        return any(choice(item) for item in items for choice in choices)

    return holds


def _condition(wanted: object) -> Condition:
    """Convert a value to a condition."""
    if wanted is None:
        return _absent
    if callable(wanted):
        return cast("Condition", wanted)
    if isinstance(wanted, bool):
        spelled = str(wanted).lower()
        return lambda value: value is wanted or (isinstance(value, str) and value.lower() == spelled)
    if isinstance(wanted, int | float):
        return lambda value: _number(value) == wanted
    return lambda value: bool(value == wanted)


def _absent(value: object) -> bool:
    return value is None


def _ordered(compare: Callable[[Any, Any], bool], bound: Bound) -> Condition:
    if not is_number(bound) and not isinstance(bound, str | date):
        raise ConfigurationError(f"a bound is a number, a text or a date, not {type(bound).__name__}")
    if isinstance(bound, datetime):
        limit = bound if bound.tzinfo else bound.replace(tzinfo=UTC)
        return lambda value: compare(_moment(value), limit)
    read: Callable[[Any], Any] = _day if isinstance(bound, date) else _text if isinstance(bound, str) else _number
    return lambda value: compare(read(value), bound)


def _number(value: object) -> float:
    if is_number(value):
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    raise MissingAttribute("an attribute is not a number")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise MissingAttribute("an attribute is not text")


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise MissingAttribute("an attribute is not an ISO 8601 date and time")


def _day(value: object) -> date:
    return _moment(value).date()
