"""The profile in templates (Jinja2; extra `templates`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import HTTPConnection

from .errors import MissingExtraError
from .profile import Profile, Reason
from .web.request_lookup import attachment_of

try:
    from jinja2 import ChainableUndefined
except ImportError:
    raise MissingExtraError("profile_enrich.templating", "templates") from None

__all__ = ["ProfileContext", "TemplateProfile", "profile_context"]


class TemplateProfile:
    """A profile as templates see it: every name is an attribute of the customer's, and nothing that is missing fails.

    `{{ profile.first_name or "there" }}` renders the default for people without that attribute, and so does
    `{{ profile.address.city or "your city" }}`, whatever the environment's own `undefined` is. `{% if profile %}` asks
    whether there is a profile, `{% if "tier" in profile %}` whether it has an attribute.

    Args:
        attributes: the profile, or an object in it.
    """

    __slots__ = ("__attributes",)

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.__attributes = attributes

    def __getitem__(self, name: str) -> Any:
        value = self.__attributes.get(name)
        if value is None:
            return ChainableUndefined(name=name)
        return TemplateProfile(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value

    def __contains__(self, name: object) -> bool:
        return name in self.__attributes

    def __iter__(self) -> Iterator[str]:
        return iter(self.__attributes)

    def __len__(self) -> int:
        return len(self.__attributes)

    def __bool__(self) -> bool:
        return bool(self.__attributes)

    def __repr__(self) -> str:
        attributes = self.__attributes
        return (
            repr(attributes) if isinstance(attributes, Profile) else f"<TemplateProfile, {len(attributes)} attributes>"
        )


@dataclass(frozen=True, slots=True)
class ProfileContext:
    """A context processor that hands the profile of whoever is in session to each template.

    Args:
        attribute: the `attribute` of the `ProfileMiddleware`. Default `"profile"`.
        name: of the variable in templates. Default `"profile"`.
    """

    attribute: str = "profile"
    name: str = "profile"

    def __call__(self, request: HTTPConnection) -> dict[str, Any]:
        """What to add to the context. The profile counts as read when the template uses it."""
        attachment = attachment_of(request, self.attribute)
        profile = Profile(reason=Reason.NOT_LOOKED_UP) if attachment is None else attachment.profile
        return {self.name: TemplateProfile(profile)}


profile_context = ProfileContext()
"""For `Jinja2Templates(..., context_processors=[profile_context])`: the profile is `profile`."""
