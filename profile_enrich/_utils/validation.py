"""Validation of arguments, with errors that name them."""

from __future__ import annotations

import math
from typing import cast

from ..errors import ConfigurationError

__all__ = ["check_bool", "check_int", "check_number", "check_text"]


def check_number(
    name: str, value: object, *, least: float = 0.0, unit: str = "seconds", positive: bool = False
) -> float:
    """Return the value, which must be a finite number of at least `least`, or above 0.

    Raises:
        ConfigurationError: the value is invalid; the message names the argument.
    """
    fits = not isinstance(value, bool) and isinstance(value, int | float) and least <= value < math.inf
    if not fits or (positive and not value):
        bound = "above 0" if positive else f"{least:g} or more"
        raise ConfigurationError(f"{name} must be a number of {unit}, {bound}, not {value!r}")
    return float(cast(float, value))


def check_int(name: str, value: object, *, least: int = 1) -> int:
    """Return the value, which must be an integer of at least `least`.

    Raises:
        ConfigurationError: the value is invalid; the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return value


def check_bool(name: str, value: object) -> bool:
    """Return the value, which must be a bool, since a string such as "false" would be true.

    Raises:
        ConfigurationError: the value is invalid; the message names the argument.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not a {type(value).__name__}")
    return value


def check_text(name: str, value: object) -> str:
    """Return the value, which must be a non-empty string.

    Raises:
        ConfigurationError: the value is invalid; the message names the argument.
    """
    if not isinstance(value, str) or not value.strip():
        what = "empty" if isinstance(value, str) else f"a {type(value).__name__}"
        raise ConfigurationError(f"{name} must be text that is not empty, not {what}")
    return value
