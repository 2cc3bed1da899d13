"""Fixtures of the documentation tests."""

from __future__ import annotations

import tempfile
from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True, scope="package")
def temporary_directories(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Create the pages' temporary directories below pytest's: the pages do not remove them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("pages")))
        yield
