"""Test helpers for Django projects: profiles from memory, and a profile on a bare request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.test import override_settings

from ..client.client import ProfileClient
from ..profile import Profile, Reason, Record
from ..sources.memory import MemorySource
from .settings import load_config

__all__ = ["attach_profile", "override_profiles"]


class override_profiles(override_settings):  # noqa: N801  # as Django spells its own
    """Use profiles from memory: a context manager, and a decorator of test functions and `SimpleTestCase` classes.

    ```python
    with override_profiles({"1": {"tier": "gold"}}):
        self.client.force_login(user)
        self.client.get("/")
    ```

    Other settings in `PROFILE_ENRICH` are kept.

    Args:
        profiles: attributes by id, as for `MemorySource`.
        options: keys of `PROFILE_ENRICH` to set, e.g. `IDENTIFY="shop.identity.customer"`.
    """

    def __init__(self, profiles: Mapping[Any, Mapping[str, Any]], **options: Any) -> None:
        super().__init__()
        self._profiles = profiles
        self._more = options

    def enable(self) -> None:
        """Start to use profiles from memory."""
        client = ProfileClient(MemorySource(self._profiles))
        given: Mapping[str, Any] = getattr(settings, "PROFILE_ENRICH", None) or {}
        self.options = {"PROFILE_ENRICH": {**given, **self._more, "CLIENT": client}}
        super().enable()

    def disable(self) -> None:
        """Restore the configuration."""
        load_config().client.close()
        super().disable()


def attach_profile(
    request: HttpRequest, attributes: Mapping[str, Any] | None, *, attribute: str = "profile"
) -> Profile:
    """Attach a profile to a request without middleware, such as one of `RequestFactory`.

    Args:
        request: the request.
        attributes: the profile's attributes; `None` for an anonymous visitor.
        attribute: the name on the request. Default `"profile"`.

    Returns:
        The profile.
    """
    profile = Profile(reason=Reason.ANONYMOUS) if attributes is None else Profile(Record(attributes, source="test"))

    async def aprofile() -> Profile:
        return profile

    setattr(request, attribute, profile)
    setattr(request, f"a{attribute}", aprofile)
    return profile
