"""Conversion of attributes to an object of the user's class."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from ..errors import ConfigurationError, ModelMismatch
from .freeze import thaw

__all__ = ["Problems", "convert", "mismatch"]

T = TypeVar("T")

Problems = list[tuple[str, str]]


def convert(data: Mapping[str, Any], model: type[T]) -> tuple[T, Problems]:
    """Make an object of the user's class. See `Profile.as_model`.

    Args:
        data: the frozen attributes. No local variable holds a plain copy, which tracebacks with locals would show.
        model: a dataclass, a pydantic model or dataclass, or a msgspec struct.

    Returns:
        The object, and the mismatches as pairs of path and problem. The object is valid only without mismatches.

    Raises:
        ConfigurationError: the class is of another kind.
    """
    if hasattr(model, "model_validate") or hasattr(model, "__pydantic_validator__"):
        made = _pydantic(data, model)
    elif dataclasses.is_dataclass(model):
        made = _dataclass(data, model)
    elif hasattr(model, "__struct_fields__"):
        made = _msgspec(data, model)
    else:
        name = getattr(model, "__name__", "the model")
        raise ConfigurationError(f"{name} is not a dataclass, a pydantic model or a msgspec struct")
    return cast("tuple[T, Problems]", made)


def mismatch(model: type[Any], problems: Problems) -> ModelMismatch:
    """Return the error for attributes that do not fit a class."""
    name = getattr(model, "__name__", "the model")
    account = "; ".join(f"{place}: {problem}" if place else problem for place, problem in problems[:10])
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return ModelMismatch(
        f"the profile does not fit {name}: {account}{more}. Make the field optional, or fix its type",
        problems=tuple(problems),
    )


def _dataclass(data: Mapping[str, Any], model: Any) -> tuple[object, Problems]:
    fields = [field for field in dataclasses.fields(model) if field.init]
    problems = [
        (field.name, "missing")
        for field in fields
        if field.name not in data
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if problems:
        return None, problems
    try:
        return model(**{field.name: thaw(data[field.name]) for field in fields if field.name in data}), []
    except (TypeError, ValueError) as error:  # raised by the class's __post_init__; its message may quote values
        return None, [("", f"its __post_init__ raised {type(error).__name__}")]


def _pydantic(data: Mapping[str, Any], model: Any) -> tuple[object, Problems]:
    validate = getattr(model, "model_validate", None)
    if validate is None:  # a pydantic dataclass
        from pydantic import TypeAdapter

        validate = TypeAdapter(model).validate_python
    try:
        return validate(thaw(data)), []
    except ValueError as error:  # pydantic's ValidationError
        account: Any = getattr(error, "errors", None)
        if account is None:
            return None, [("", f"it raised {type(error).__name__}")]
        found = account(include_url=False, include_context=False, include_input=False)
        # Use the type of the error, because the message may quote the value.
        return None, [(_path(item["loc"], model), str(item["type"]).replace("_", " ")) for item in found]


def _path(places: tuple[object, ...], model: Any) -> str:
    """Return the path of a field. Other parts, such as a dictionary's keys, are data and are hidden."""
    known: set[str] = set()
    _names(model, known, set())
    return ".".join(str(place) if isinstance(place, int) or place in known else "…" for place in places)


def _names(model: Any, known: set[str], seen: set[int]) -> None:
    """Return the names of all fields of a pydantic model and its nested models."""
    if id(model) in seen:
        return
    seen.add(id(model))
    for name, field in getattr(model, "__pydantic_fields__", {}).items():
        known.update(text for text in (name, field.alias, field.validation_alias) if isinstance(text, str))
        _inner(field.annotation, known, seen)


def _inner(annotation: Any, known: set[str], seen: set[int]) -> None:
    if hasattr(annotation, "__pydantic_fields__"):
        _names(annotation, known, seen)
    for argument in getattr(annotation, "__args__", ()):
        _inner(argument, known, seen)


_MSGSPEC = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_SAFE = re.compile(r"Expected `[\w |]+`(?:, got `[\w |]+`)?|Object (?:missing required|contains unknown) field `\w+`")


def _msgspec(data: Mapping[str, Any], model: Any) -> tuple[object, Problems]:
    import msgspec  # called only for a msgspec class, so msgspec is installed

    try:
        return msgspec.convert(thaw(data), model, strict=False), []
    except ValueError as error:  # msgspec's ValidationError, which reports only the first problem
        match = _MSGSPEC.match(str(error))
        problem, path = (match["problem"], match["path"] or "") if match else ("", "")
    # Some messages quote the value, and the name of an unknown field is data.
    safe = _SAFE.fullmatch(problem)
    if safe is None or "unknown" in problem:
        problem = "not a value that the field takes" if path else "the class does not take it"
    return None, [(path, problem)]
