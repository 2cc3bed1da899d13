"""Tests of the adapters for other engines: `make test-engines`, or `make test-engine-beam` for Beam."""

from __future__ import annotations

import importlib
import os

import pytest

__all__ = ["needs"]


def needs(engine: str, module: str) -> None:
    """Skips the test module where the engine is not installed, and says which command runs it.

    Where that command runs it, a missing engine is a failure.
    """
    if os.environ.get("PROFILE_ENRICH_ENGINE") == engine:
        importlib.import_module(module)
    else:
        pytest.importorskip(
            module,
            reason=f"{engine} is tested in an environment of its own: make test-engine-{engine}",
            exc_type=ImportError,
        )
