"""The `PROFILE_ENRICH` setting: read once, validated, and shared by all requests."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Mapping
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from ..client.client import ProfileClient
from ..errors import ConfigurationError
from ..web.argument_checks import check_attribute
from ..web.blocking_lookup import BlockingConfig
from ..web.identity_functions import from_user

__all__ = ["DjangoConfig", "SettingProblem", "load_config", "read_config"]

_KEYS = ("CLIENT", "IDENTIFY", "CONSENT", "BUDGET", "EXCLUDE", "ATTRIBUTE", "VARY_ON", "SERVER_TIMING")

_IMPORTED = ("CLIENT", "IDENTIFY", "CONSENT")

_lock = threading.Lock()
_loaded: list[DjangoConfig] = []


class SettingProblem(ConfigurationError):
    """The `PROFILE_ENRICH` setting is invalid.

    Args:
        message: the problem.
        hint: the remedy.
        check_id: the id under which `manage.py check` reports it.
    """

    def __init__(self, message: str, hint: str, check_id: str) -> None:
        super().__init__(f"{message} {hint}")
        self.problem = message
        self.hint = hint
        self.check_id = check_id


class DjangoConfig(BlockingConfig):
    """The validated setting.

    Args:
        attribute: the name on the request.
        options: as for `BlockingConfig`.
    """

    def __init__(self, *, attribute: str = "profile", **options: Any) -> None:
        self.attribute = check_attribute(attribute)
        super().__init__(**options)


def load_config() -> DjangoConfig:
    """Return the configuration shared by all middleware instances of this process.

    Raises:
        ImproperlyConfigured: the setting is invalid; the message has the reason.
    """
    with _lock:
        if not _loaded:
            try:
                _loaded.append(read_config())
            except SettingProblem as error:
                raise ImproperlyConfigured(error.message) from None
        return _loaded[0]


def _forget(*, setting: str, **_: Any) -> None:
    """Forget the configuration after `override_settings`, in tests."""
    if setting == "PROFILE_ENRICH":
        with _lock:
            _loaded.clear()


setting_changed.connect(_forget, dispatch_uid="profile_enrich")


def read_config() -> DjangoConfig:
    """Read and validate the setting.

    Raises:
        SettingProblem: the first problem found.
    """
    given = getattr(settings, "PROFILE_ENRICH", None)
    if not isinstance(given, Mapping):
        raise SettingProblem(
            f"PROFILE_ENRICH must be a dict, not {type(given).__name__}.",
            'Set PROFILE_ENRICH = {"CLIENT": "yourproject.profiles.client"}.',
            "profile_enrich.E001",
        )
    options = dict(cast("Mapping[str, Any]", given))
    for name in options:
        if name not in _KEYS:
            close = difflib.get_close_matches(str(name).upper(), _KEYS, 1)
            raise SettingProblem(
                f"PROFILE_ENRICH has no key {name!r}.",
                f"Did you mean {close[0]!r}?" if close else f"Its keys are {', '.join(_KEYS)}.",
                "profile_enrich.E002",
            )
    if not options.get("CLIENT"):
        raise SettingProblem(
            'PROFILE_ENRICH has no "CLIENT".',
            'Name the ProfileClient by its dotted path, e.g. "yourproject.profiles.client".',
            "profile_enrich.E003",
        )
    for name in _IMPORTED:
        if isinstance(options.get(name), str):
            options[name] = _imported(name, options[name])
    if callable(options["CLIENT"]) and not isinstance(options["CLIENT"], ProfileClient):
        options["CLIENT"] = options["CLIENT"]()
    options.setdefault("IDENTIFY", from_user("pk"))
    try:
        return DjangoConfig(**{name.lower(): value for name, value in options.items()})
    except ConfigurationError as error:
        argument, _, rest = error.message.partition(" ")
        raise SettingProblem(
            f'PROFILE_ENRICH["{argument.rstrip(":").upper()}"] {rest}.', "Correct the value.", "profile_enrich.E005"
        ) from None


def _imported(name: str, path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as error:
        raise SettingProblem(
            f'PROFILE_ENRICH["{name}"]: {path!r} cannot be imported: {error}',
            "Give the dotted path of a module and a name in it.",
            "profile_enrich.E004",
        ) from None
