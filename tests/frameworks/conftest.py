"""Fixtures of the frameworks' tests."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("django") is not None:
    from tests.apps.django_settings import configure

    configure()  # before a module of this package makes a view with Django's decorators


@pytest.fixture
def people() -> None:
    """Django's tables for users and sessions."""
    pytest.importorskip("django", reason="Django is not installed: pip install django")
    from tests.apps.django_settings import migrate

    migrate()
