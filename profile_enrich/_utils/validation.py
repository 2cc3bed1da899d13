"""Validation of arguments, with errors that name them."""

from __future__ import annotations

import math
from typing import TypeGuard

from ..errors import ConfigurationError

__all__ = ["check_bool", "check_int", "check_number", "check_text", "is_int", "is_number"]


def is_int(value: object) -> TypeGuard[int]:
    """Return whether the value is an integer; a bool is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether the value is an integer or a float; a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_number(
    name: str,
    value: object,
    *,
    least: float = 0.0,
    most: float = math.inf,
    unit: str = "seconds",
    positive: bool = False,
) -> float:
    """Return the value, which must be a finite number of at least `least`, or above 0, and at most `most`.

    Raises:
        ConfigurationError: the value is invalid; the message names the argument.
    """
    if not is_number(value) or not least <= value <= most or value == math.inf or (positive and not value):
        bound = "above 0" if positive else f"{least:g} or more"
        limit = "" if most == math.inf else f" and at most {most:,}"
        raise ConfigurationError(f"{name} must be a number of {unit}, {bound}{limit}, not {value!r}")
    return float(value)


def check_int(name: str, value: object, *, least: int = 1, most: int | None = None) -> int:
    """Return the value, which must be an integer of at least `least`, and at most `most`.

    Raises:
        ConfigurationError: the value is invalid; the message names the argument.
    """
    if not is_int(value) or value < least or (most is not None and value > most):
        bound = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{name} must be a whole number {bound}, not {value!r}")
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
