"""Output columns of tables: names, types and conversion of values."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from ..._utils.freeze import thaw
from ..._utils.optional_import import import_extra
from ...errors import ConfigurationError

__all__ = ["Columns", "Fields", "arrow"]

Fields = Mapping[str, Any] | Iterable[str]
"""Attributes with their Arrow types (`{"tier": "string", "ltv": "double"}`), or their names alone."""

_STRINGS = frozenset({str, type(None)})
_KEPT = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, bytes)


def arrow() -> Any:
    """Return the module `pyarrow`.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra("pyarrow", "enriching tables", "arrow")


class Columns:
    """The output columns of attributes.

    Args:
        fields: a mapping of attributes to Arrow types; or attributes, with inferred types; or `None` for all attributes
            found, with inferred types. A type is a `pyarrow.DataType` or its name (`"string"`, `"int64"`, `"double"`,
            `"bool"`, `"date32"`, `"timestamp[us]"` …).
        prefix: the prefix of the column names.

    Raises:
        ConfigurationError: a name or type is invalid, or `fields` is empty.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, fields: Fields | None, prefix: str) -> None:
        pa = arrow()
        if not isinstance(prefix, str):
            raise ConfigurationError(f"prefix must be text, not {type(prefix).__name__}")
        if isinstance(fields, str | bytes):
            raise ConfigurationError("fields must be a mapping of attributes to types, or a list of attributes")
        self.prefix = prefix
        self.types: dict[str, Any] | None = None
        if fields is None:
            return
        typed = isinstance(fields, Mapping)
        self.types = {}
        for name in fields:
            if not isinstance(name, str) or not name:
                raise ConfigurationError("fields must name attributes as text that is not empty")
            self.types[name] = _type(pa, name, cast("Mapping[str, object]", fields)[name]) if typed else None
        if not self.types:
            raise ConfigurationError("fields must name at least one attribute" + (" with its type" if typed else ""))

    @property
    def declared(self) -> bool:
        """Whether all names and types are known before the first profile."""
        return self.types is not None and all(kind is not None for kind in self.types.values())

    def require_declared(self, engine: str) -> None:
        """Check that all types are declared, for engines that need the schema in advance.

        Raises:
            ConfigurationError: a type is not declared.
        """
        if not self.declared:
            raise ConfigurationError(
                f"{engine} needs to know the columns before it runs: give fields as a mapping of attributes to Arrow "
                'types, for example fields={"tier": "string", "ltv": "double"}'
            )

    def schema(self) -> list[tuple[str, Any]]:
        """Return the names and Arrow types of the new columns, if all are declared."""
        return [(self.prefix + name, kind) for name, kind in (self.types or {}).items()]

    def fill(self, profiles: Sequence[Mapping[str, Any] | None]) -> tuple[dict[str, Any], set[int]]:
        """Convert attributes to one Arrow array per column.

        Args:
            profiles: the attributes of each row, or `None`.

        Returns:
            The arrays by column name; and the positions of rows in which a value does not fit its declared type, and is
            null.
        """
        pa = arrow()
        types = self.types
        if types is None:
            types = dict.fromkeys(name for profile in profiles if profile for name in profile)
        arrays: dict[str, Any] = {}
        unfit: set[int] = set()
        for name, declared in types.items():
            values = [None if profile is None else profile.get(name) for profile in profiles]
            kind = _inferred(pa, values) if declared is None else declared
            arrays[self.prefix + name] = _array(pa, values, kind, unfit)
        return arrays, unfit


def _type(pa: Any, name: str, given: object) -> Any:
    if isinstance(given, pa.DataType):
        return given
    if isinstance(given, str):
        try:
            return pa.type_for_alias(given)
        except ValueError:
            pass
    raise ConfigurationError(
        f"fields: the type of {name!r} must be the name of an Arrow type, such as 'string' or 'int64'"
        ", or a pyarrow.DataType"
    )


def _inferred(pa: Any, values: Sequence[object]) -> Any:
    """Infer the type of an undeclared column, by the rules in docs/dataframes.md."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.null()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        fits = all(-(2**63) <= cast(int, value) < 2**63 for value in values if value is not None)
        return pa.int64() if fits else pa.string()
    if kinds <= {int, float}:
        return pa.float64()
    if len(kinds) == 1 and kinds <= set(_KEPT):
        try:
            return pa.infer_type([value for value in values if value is not None])
        except pa.ArrowInvalid:  # e.g. times with and without a time zone
            return pa.string()
    return pa.string()


def _array(pa: Any, values: Sequence[object], kind: Any, unfit: set[int]) -> Any:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if not _STRINGS.issuperset(map(type, values)):
            values = [_text(value) for value in values]
        return pa.array(values, type=kind)
    plain = [thaw(value) for value in values]
    try:
        # A cast rejects lossy conversions; `type=` alone truncates 1.5 to 1.
        if not pa.types.is_nested(kind):
            return pa.array(plain).cast(kind)
        if not any(isinstance(value, str | bytes) for value in plain):  # strings would become lists of characters
            return pa.array(plain, type=kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    fitted = [_fitted(pa, value, kind) for value in plain]
    unfit.update(place for place, value in enumerate(plain) if value is not None and fitted[place] is None)
    return pa.array(fitted, type=kind)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(thaw(value), ensure_ascii=False, default=str)


def _fitted(pa: Any, value: object, kind: Any) -> Any:
    """Convert a value for Arrow, since JSON has dates, and some vendors send numbers, as text."""
    try:
        if pa.types.is_nested(kind):
            return None if isinstance(value, str | bytes) else pa.array([value], type=kind)[0].as_py()
        return pa.scalar(value).cast(kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
