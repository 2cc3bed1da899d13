"""Merge of a profile into a record, as one field or as one field per attribute."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any, cast

from ..._utils.freeze import thaw
from ..._utils.log_once import LogOnce
from ...errors import ConfigurationError, InputError
from ...profile import Profile

__all__ = ["RecordMerger"]

logger = logging.getLogger("profile_enrich")

_PLAIN = frozenset({str, int, float, bool, type(None)})


class RecordMerger:
    """Make the enriched record: a new dict with the record's fields first.

    Args:
        fields: the attributes to add, in this order; `None` for all.
        into: the field for them, as a dict.
        prefix: the prefix of one field per attribute, instead of `into`.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    def __init__(self, fields: Iterable[str] | None, into: str, prefix: str | None) -> None:
        names: tuple[str, ...] | None = None
        if fields is not None:
            names = () if isinstance(fields, str | bytes) else tuple(fields)
            if not names or not all(isinstance(name, str) and name for name in names):
                raise ConfigurationError("fields must be a list of attributes' names, such as ['tier', 'ltv']")
        if not isinstance(into, str) or not into:
            raise ConfigurationError("into must be the name of a field")
        if prefix is not None and not isinstance(prefix, str):
            raise ConfigurationError(f"prefix must be text, not {type(prefix).__name__}")
        if prefix is not None and into != "profile":
            raise ConfigurationError("give into (one field) or prefix (columns of their own), not both")
        self._fields = names
        self._into = into
        self._columns = None if names is None or prefix is None else [(prefix + name, name) for name in names]
        self._prefix = prefix
        self._once = LogOnce()
        self.clashes = 0
        """The number of records that already had one of the fields, and kept its value."""
        self.unseen: set[str] = set(names or ())
        """The names in `fields` that no profile has had so far."""

    def of(self, row: Any, profile: Profile | None) -> dict[str, Any]:
        """Return the enriched record.

        Args:
            row: a mapping, a dataclass, a named tuple, or an object with attributes. It is not modified.
            profile: its profile; for `None` or an empty one, the fields are null.

        Raises:
            InputError: the record has no fields.
        """
        made = dict(cast("dict[str, Any]", row)) if type(row) is dict else _dict_of(row)
        new = self.added(None if profile is None or not profile.found else profile.attributes)
        if made.keys().isdisjoint(new):
            made.update(new)
        else:
            self.clashes += 1
            for column in new.keys() & made.keys():
                if self._once.first(column):
                    logger.warning("records have a field %r already; theirs is kept, the profile's is left out", column)
            made = {**made, **{column: value for column, value in new.items() if column not in made}}
        return made

    def added(self, found: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the fields added to a record.

        Args:
            found: the attributes of its profile; `None` if there is none.
        """
        if found is not None and self.unseen:
            self.unseen -= found.keys()
        if self._columns is not None:
            return {column: None if found is None else _plain(found.get(name)) for column, name in self._columns}
        if self._prefix is None:
            return {self._into: None if found is None else self._picked(found)}
        return {} if found is None else {self._prefix + name: _plain(value) for name, value in found.items()}

    def _picked(self, found: Mapping[str, Any]) -> dict[str, Any]:
        names = found if self._fields is None else self._fields
        return {name: _plain(found.get(name)) for name in names}


def _plain(value: object) -> Any:
    # Copy mutable values, because the cached record is shared.
    return value if type(value) in _PLAIN else thaw(value)


def _dict_of(row: Any) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return dict(cast("Mapping[str, Any]", row))
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    names: Iterable[str] | None = getattr(row, "_fields", None) or getattr(row, "__struct_fields__", None)
    if names is None:
        names = [name for name in getattr(row, "__dict__", ()) if not name.startswith("_")]
    if not names:
        raise InputError(
            f"a record of type {type(row).__name__} has no fields that could be added to; use mappings, dataclasses or "
            "objects with attributes, or take the profiles from outcomes()"
        )
    return {name: getattr(row, name) for name in names}
