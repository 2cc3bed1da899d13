"""Django application, which registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.checks import register
from django.core.signals import got_request_exception

from .checks import check_setup
from .lookup import renew_after_sign_in
from .middleware import explain_current

__all__ = ["ProfileEnrichConfig"]


class ProfileEnrichConfig(AppConfig):
    """The application `"profile_enrich.django"` for `INSTALLED_APPS`; it adds checks to `manage.py check`."""

    name = "profile_enrich.django"
    label = "profile_enrich"
    verbose_name = "profile_enrich"

    def ready(self) -> None:
        """Register the checks, under a tag of their own, and follow sign-in, sign-out and exceptions of requests."""
        register(check_setup, "profile_enrich")
        for signal in (user_logged_in, user_logged_out):
            signal.connect(renew_after_sign_in, dispatch_uid="profile_enrich")
        got_request_exception.connect(explain_current, dispatch_uid="profile_enrich")
