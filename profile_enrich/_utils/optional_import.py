"""Import of engines, each of which has its own extra."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtraError

__all__ = ["engine"]


def engine(module: str, feature: str, extra: str) -> Any:
    """Import a module of an engine.

    The engines require conflicting versions of libraries, so no environment has all of them, and their types are not
    used.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        absent = error.name or ""
        if absent.partition(".")[0] != module.partition(".")[0]:
            raise  # the engine is installed, and lacks a dependency
    raise MissingExtraError(feature, extra)
