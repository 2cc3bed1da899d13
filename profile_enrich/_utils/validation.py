"""Arguments checked where they are given, with errors that name them."""

from __future__ import annotations

import math
from typing import cast

from ..errors import ConfigurationError

__all__ = ["check_int", "check_number"]


def check_number(
    name: str, value: object, *, least: float = 0.0, unit: str = "seconds", positive: bool = False
) -> float:
    """A finite number of at least `least`, or above 0.

    Raises:
        ConfigurationError: it is none; the message names the argument.
    """
    fits = not isinstance(value, bool) and isinstance(value, int | float) and least <= value < math.inf
    if not fits or (positive and not value):
        bound = "above 0" if positive else f"{least:g} or more"
        raise ConfigurationError(f"{name} must be a number of {unit}, {bound}, not {value!r}")
    return float(cast(float, value))


def check_int(name: str, value: object, *, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises:
        ConfigurationError: it is none; the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return value
