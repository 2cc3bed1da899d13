"""What holds for every test: the long ones run under `make test-long`, and the longest files start first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two processes share the files. A file of a minute that starts last would leave one of them idle.
LONGEST = (
    "test_accessibility.py",
    "test_docs_followed.py",
    "test_storefront.py",
    "test_page.py",
    "test_filters.py",
    "test_operator_extension.py",
    "test_demo.py",
    "test_deploy.py",
    "test_gunicorn.py",
    "test_connection_limits.py",
    "test_kill.py",
    "test_soak.py",
    "test_benchmarks.py",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes many seconds; `make test` leaves it to `make test-long`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not os.environ.get("PROFILE_ENRICH_LONG"):
        skip = pytest.mark.skip(reason="takes many seconds; run it with: make test-long")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip)
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(Path(item.path).name, len(order)))
