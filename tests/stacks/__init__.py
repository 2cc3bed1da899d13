"""The package inside other people's libraries, in an environment of their own: `make test-stacks`."""

from __future__ import annotations

import importlib
import os

import pytest

__all__ = ["needs"]


def needs(*modules: str) -> None:
    """Skip the test module where a library is not installed, and say which command runs it.

    Under that command, a missing library is a failure.

    Args:
        modules: the names to import, such as `"sentry_sdk"`.
    """
    for module in modules:
        if os.environ.get("PROFILE_ENRICH_STACKS"):
            importlib.import_module(module)
        else:
            pytest.importorskip(
                module, reason=f"{module} is in an environment of its own: make test-stacks", exc_type=ImportError
            )
