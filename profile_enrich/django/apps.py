"""The Django application: it registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.checks import register

from .checks import check_setup
from .lookup import renew_after_sign_in

__all__ = ["ProfileEnrichConfig"]


class ProfileEnrichConfig(AppConfig):
    """`"profile_enrich.django"` in `INSTALLED_APPS`: `manage.py check` then looks at the settings."""

    name = "profile_enrich.django"
    label = "profile_enrich"
    verbose_name = "profile_enrich"

    def ready(self) -> None:
        """Register the checks, under a tag of their own, and follow sign-in and sign-out within a request."""
        register(check_setup, "profile_enrich")
        for signal in (user_logged_in, user_logged_out):
            signal.connect(renew_after_sign_in, dispatch_uid="profile_enrich")
