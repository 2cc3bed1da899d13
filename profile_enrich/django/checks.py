"""System checks of the setup, before the first request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from .settings import DjangoConfig, SettingProblem, read_config

__all__ = ["check_setup"]

_MIDDLEWARE = "DjangoProfileMiddleware"
_SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
_USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"
_PROCESSOR = "profile_enrich.django.context_processors.profile"


def check_setup(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    """Check `PROFILE_ENRICH`, `MIDDLEWARE` and `TEMPLATES`."""
    found = _installed()
    try:
        config = read_config()
    except SettingProblem as error:
        return [Error(error.problem, hint=error.hint, id=error.check_id)]
    if not found:
        return [*_processor_alone(), _not_installed()]
    if len(found) > 1:
        return [
            Error(
                f"{_MIDDLEWARE} is in MIDDLEWARE {len(found)} times.",
                hint="Leave one of them.",
                id="profile_enrich.E006",
            )
        ]
    return _missing_before(config)


def _installed() -> list[str]:
    return [path for path in settings.MIDDLEWARE if path.startswith("profile_enrich.") and path.endswith(_MIDDLEWARE)]


def _not_installed() -> CheckMessage:
    return Warning(
        f"profile_enrich.django is installed, but {_MIDDLEWARE} is not in MIDDLEWARE: requests have no profile.",
        hint=f'Add "profile_enrich.django.{_MIDDLEWARE}" after "{_USERS}".',
        id="profile_enrich.W001",
    )


def _processor_alone() -> list[CheckMessage]:
    for engine in cast("list[dict[str, Any]]", settings.TEMPLATES):
        if _PROCESSOR in engine.get("OPTIONS", {}).get("context_processors", ()):
            return [
                Error(
                    f"The context processor {_PROCESSOR} needs {_MIDDLEWARE}, which is not in MIDDLEWARE.",
                    hint=f'Add "profile_enrich.django.{_MIDDLEWARE}" to MIDDLEWARE.',
                    id="profile_enrich.E007",
                )
            ]
    return []


def _missing_before(config: DjangoConfig) -> list[CheckMessage]:
    """Find what the identity function requires and no middleware provides."""
    order: list[str] = list(settings.MIDDLEWARE)
    at = order.index(_installed()[0])
    messages: list[CheckMessage] = []
    for needs, path, what in (("session", _SESSIONS, "request.session"), ("user", _USERS, "request.user")):
        if needs not in config.requires() or path in order[:at]:
            continue
        where = "is not in MIDDLEWARE" if path not in order else f"comes after {_MIDDLEWARE} in MIDDLEWARE"
        messages.append(
            Warning(
                f'PROFILE_ENRICH["IDENTIFY"] needs {what}, but {path} {where}.',
                hint=f"Put {_MIDDLEWARE} after it, unless another middleware sets {what}.",
                id="profile_enrich.W002",
            )
        )
    return messages
