"""Context processor for Django's templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.http import HttpRequest

from ..profile import Profile
from .lookup import lookup_of

__all__ = ["DjangoTemplateProfile", "profile"]


class DjangoTemplateProfile:
    """A profile wrapped for Django's templates: each name is an attribute, and a missing one is empty.

    `{% cache 60 greeting profile %}` caches one fragment per person.

    Args:
        profile: the profile of the request.
    """

    __slots__ = ("__profile",)

    def __init__(self, profile: Profile) -> None:
        self.__profile = profile

    def __getitem__(self, name: str) -> Any:
        value = self.__profile[name]
        if value is None:  # like a missing value, not as the text "None"
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self.__profile

    def __iter__(self) -> Iterator[str]:
        return iter(self.__profile)

    def __len__(self) -> int:
        return len(self.__profile)

    def __bool__(self) -> bool:
        return bool(self.__profile)

    def __repr__(self) -> str:
        return repr(self.__profile)

    def __str__(self) -> str:
        # What `{% cache %}` makes a key of: the fragment is then this person's, also when it is not rendered again.
        bool(self.__profile)
        return repr(self.__profile)


def profile(request: HttpRequest) -> Mapping[str, Any]:
    """Add the profile to templates: `{{ profile.first_name|default:"there" }}`. It counts as read when used."""
    lookup = lookup_of(request)
    return {} if lookup is None else {lookup.attribute: DjangoTemplateProfile(lookup.profile)}
