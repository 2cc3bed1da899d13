"""What holds for the tests of the documents."""

from __future__ import annotations

import tempfile
from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True, scope="package")
def temporary_directories(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Pages make temporary directories, and say nothing of removing them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("pages")))
        yield
