"""Import of libraries that only an extra brings."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["import_extra", "needs_extra"]


@contextlib.contextmanager
def needs_extra(package: str, feature: str, extra: str) -> Generator[None]:
    """Guard imports from a package that only an extra brings; the names that are imported keep their types.

    Raises:
        MissingExtraError: the package is not installed, or too old.
        ImportError: it is installed, and lacks a dependency.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingExtraError(feature, extra) from None


def import_extra(module: str, feature: str, extra: str) -> Any:
    """Import a module whose types are not used, such as one of an engine: no environment has all engines.

    Raises:
        MissingExtraError: see `needs_extra`.
    """
    with contextlib.suppress(MissingExtraError), needs_extra(module.partition(".")[0], feature, extra):
        return importlib.import_module(module)
    raise MissingExtraError(feature, extra)  # outside of the handler, so that it has no other error as its context
