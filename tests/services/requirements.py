"""Skip tests whose service is missing, with the command that runs them; fail under that command."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

WANTED = bool(os.environ.get("PROFILE_ENRICH_SERVICES"))


def need(there: bool, what: str, how: str) -> None:
    """Skip the test, or fail if `make test-services` requires the services."""
    if not WANTED:
        pytest.skip("starts services of its own; run them with: make test-services")
    if not there:
        pytest.fail(f"{what} is not installed; install it with: {how}")


def program(name: str) -> str | None:
    """Return the path of a program; PostgreSQL's are in one directory for each version."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(places[0]) if places else shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
