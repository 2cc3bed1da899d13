"""Engines are imported when their adapter is, and each is installed with an extra of its own."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtraError

__all__ = ["engine"]


def engine(module: str, feature: str, extra: str) -> Any:
    """A module of an engine.

    Its types are not used: the engines want different versions of the same libraries, so that no one environment, nor
    the one in which this package is checked, holds all of them.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        absent = error.name or ""
        if absent.partition(".")[0] != module.partition(".")[0]:
            raise  # the engine is there, and lacks something of its own
    raise MissingExtraError(feature, extra)
