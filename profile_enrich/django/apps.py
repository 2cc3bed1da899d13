"""The Django application: it registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from .checks import check_setup

__all__ = ["ProfileEnrichConfig"]


class ProfileEnrichConfig(AppConfig):
    """`"profile_enrich.django"` in `INSTALLED_APPS`: `manage.py check` then looks at the settings."""

    name = "profile_enrich.django"
    label = "profile_enrich"
    verbose_name = "profile_enrich"

    def ready(self) -> None:
        """Register the checks, under a tag of their own: `manage.py check --tag profile_enrich`."""
        register(check_setup, "profile_enrich")
