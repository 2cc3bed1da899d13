"""Fixtures of the frameworks' tests."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("django") is not None:
    from tests.apps.django_settings import configure

    configure()  # before a module of this package makes a view with Django's decorators


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Django leaves the connections of ended threads to the garbage collector, which Python warns of from 3.13 on."""
    for item in items:
        if item.path.name.startswith("test_django"):
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"))


@pytest.fixture
def people() -> None:
    """Django's tables for users and sessions."""
    pytest.importorskip("django", reason="Django is not installed: pip install django")
    from tests.apps.django_settings import migrate

    migrate()
