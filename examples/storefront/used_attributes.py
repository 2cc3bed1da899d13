"""A view of a profile that notes which attributes a page used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from profile_enrich import Profile


class UsedAttributes(Mapping[str, Any]):
    """A mapping over a profile. `names` lists the attributes that were read and are there, in the order of use.

    Args:
        profile: the profile of the request.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._names: dict[str, None] = {}

    @property
    def names(self) -> list[str]:
        """Return the names of the attributes that were used."""
        return list(self._names)

    def __getitem__(self, name: str) -> Any:
        value = self._profile[name]
        self._names[name] = None
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._profile)

    def __len__(self) -> int:
        return len(self._profile)
