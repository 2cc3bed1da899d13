"""Parsing of durations and rates."""

from __future__ import annotations

import re

from ..errors import ConfigurationError

__all__ = ["parse_duration", "parse_rate"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `250ms`, `90s`, `15m`, `2h`, `1d` or `900`.

    Raises:
        ConfigurationError: the text is not a duration above zero.
    """
    found = re.fullmatch(rf"{_NUMBER}(ms|s|m|h|d)?\s*", text, re.ASCII)
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found else 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError("a duration is a number and a unit, e.g. 90s, 15m, 2h or 1d")
    return seconds


def parse_rate(text: str) -> float:
    """Return the calls per second of a rate such as `500`, `500/s`, `30000/m` or `1000/h`.

    Raises:
        ConfigurationError: the text is not a rate above zero.
    """
    found = re.fullmatch(rf"{_NUMBER}(?:/\s*(s|m|h|d))?\s*", text, re.ASCII)
    rate = float(found[1]) / _SECONDS[found[2] or "s"] if found else 0.0
    if not 0 < rate < float("inf"):
        raise ConfigurationError("a rate is calls per second, e.g. 500/s, or per minute (30000/m) or hour (/h)")
    return rate
