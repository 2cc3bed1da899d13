"""Find profiles by id or by an attribute, and remember the results of each session."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profile_enrich import AmperitySource, Profile, ProfileClient, ProfileKey

MOST = 20
"""The largest number of profiles that a search shows."""
SECONDS = 5.0
"""How long an operator waits for the Profile API, in seconds."""
_REMEMBERED = 5_000


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """One profile that a search found. Its `repr` contains no data."""

    id: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """The result of a search; `more` is true if there are more profiles than shown."""

    profiles: tuple[Found, ...] = ()
    more: bool = False


class Finder:
    """Search the Profile API.

    By id it asks through the client, which caches. By an attribute it asks Amperity's list, which can answer with
    several; other sources are asked for the one profile with that value, where they can be.

    Args:
        client: looks profiles up.
    """

    def __init__(self, client: ProfileClient) -> None:
        self.client = client

    async def find(self, kind: str, value: str) -> Results:
        """Return the profiles whose `kind` is exactly `value`.

        Raises:
            ProfileEnrichError: the value cannot be looked up, or the Profile API did not answer.
        """
        source = self.client.source
        if not isinstance(source, AmperitySource) or kind == "id":
            key = ProfileKey(value, type=kind)
            # Under another key than the id it is asked anew each time, so that forgetting the id forgets all.
            ask = self.client.get if kind == "id" else self.client.refresh
            profile = await ask(key, budget=SECONDS)
            return Results((Found(profile.id or value, profile.attributes),) if profile else ())
        page = await source.list_profiles({kind: ProfileKey(value).value}, limit=MOST, timeout=SECONDS)
        rows = page.data[:MOST]
        return Results(tuple(Found(row.id, row.attributes) for row in rows), more=page.next_token is not None)

    async def get(self, id: str) -> Profile:
        """Return the profile with this id, from the cache if it is fresh.

        Raises:
            ProfileEnrichError: the Profile API did not answer.
        """
        return await self.client.get(id, budget=SECONDS)

    def forget(self, id: str) -> None:
        """Remove the profile from the cache; the next view calls the Profile API."""
        self.client.invalidate(id)


class Handles:
    """The pseudonyms of the ids that each session found, so that no id is in a URL, a history or a server's log.

    It is in memory alone: after a restart, or after many others, somebody has to search again.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[tuple[bytes, str], str] = OrderedDict()

    def keep(self, session: bytes, subject: str, id: str) -> None:
        """Let the session open the profile by its subject."""
        self._ids[session, subject] = id
        self._ids.move_to_end((session, subject))
        while len(self._ids) > _REMEMBERED:
            self._ids.popitem(last=False)

    def id(self, session: bytes, subject: str) -> str | None:
        """Return the id, if the signed-in operator found it."""
        return self._ids.get((session, subject))

    def drop(self, session: bytes) -> None:
        """Remove the results of a session."""
        for key in [key for key in self._ids if key[0] == session]:
            del self._ids[key]
