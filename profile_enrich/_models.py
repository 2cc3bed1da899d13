"""Attributes as an object of the user's own class."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, cast

from .errors import ConfigurationError

__all__ = ["convert"]

T = TypeVar("T")


def convert(data: dict[str, Any], model: type[T]) -> T:
    """See `Profile.as_model`."""
    name = getattr(model, "__name__", "the model")
    failed = ""
    try:
        if dataclasses.is_dataclass(model):
            fields = {field.name for field in dataclasses.fields(model) if field.init}
            return cast("type[T]", model)(**{key: value for key, value in data.items() if key in fields})
        if hasattr(model, "model_validate"):
            return cast("T", cast(Any, model).model_validate(data))
        if hasattr(model, "__struct_fields__"):
            import msgspec  # only with a msgspec class, and then it is there

            return msgspec.convert(data, model, strict=False)
    except (TypeError, ValueError) as error:  # pydantic's and msgspec's validation errors are ValueErrors
        failed = type(error).__name__
    if failed:
        raise ConfigurationError(f"the profile does not fit {name} ({failed}); make the field optional or fix its type")
    raise ConfigurationError(f"{name} is not a dataclass, a pydantic model or a msgspec struct")
