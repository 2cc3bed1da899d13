"""Tests against services of their own: skipped with the command that runs them, unless that command runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

WANTED = bool(os.environ.get("PROFILE_ENRICH_SERVICES"))


def need(there: bool, what: str, how: str) -> None:
    """Skip the test, or fail where `make test-services` says that services are to be there."""
    if not WANTED:
        pytest.skip("starts services of its own; run them with: make test-services")
    if not there:
        pytest.fail(f"{what} is not installed; install it with: {how}")


def program(name: str) -> str | None:
    """Where a program is; PostgreSQL's own are beside one another in a directory of each version."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(places[0]) if places else shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
