"""The parts that pages and side panel share: the operator, the role and the audit log."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from profile_enrich import Profile, ProfileClient, ProfileEnrichError, ProfileSource

from .attempts import Attempts
from .audit_log import AuditLog
from .database import open_database, subject_secret
from .finder import Finder, Found, Handles, Results
from .roles import NOBODY, Role, load_roles
from .sessions import Session, Sessions
from .settings import Settings
from .users import Users


class NotAllowed(Exception):
    """The operator's role does not permit the action."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A signed-in operator with a role."""

    session: Session
    role: Role

    @property
    def name(self) -> str:
        """The user's name."""
        return self.session.user


class Console:
    """The parts, put together.

    Args:
        settings: how it runs.
        source: the source of profiles. Default: the Profile API of the settings.

    Raises:
        ValueError: the roles make no sense.
    """

    def __init__(self, settings: Settings, source: ProfileSource | None = None) -> None:
        self.settings = settings
        self.roles = load_roles(settings.roles)
        # An operator reads what is there now, and hears when the Profile API fails: nothing stale.
        self.client = ProfileClient(source or settings.source(), ttl=settings.ttl, stale_ttl=0.0, negative_ttl=1.0)
        self.finder = Finder(self.client)
        self.handles = Handles()
        self.attempts = Attempts()
        self.database: sqlite3.Connection = open_database(settings.data)
        self.users = Users(self.database)
        self.sessions = Sessions(self.database)
        self.audit_log = AuditLog(self.database, subject_secret(settings.data))
        self.cookie = "__Host-console" if settings.secure_cookie else "console"

    async def aclose(self) -> None:
        """Close the Profile API's client and the database."""
        await self.client.aclose()
        self.database.close()

    def operator(self, connection: HTTPConnection) -> Operator | None:
        """Return the operator who sent the request; `None` if nobody is signed in."""
        session = self.sessions.read(connection.cookies.get(self.cookie))
        return None if session is None else Operator(session, self.roles.get(session.role, NOBODY))

    def kinds(self, operator: Operator) -> tuple[str, ...]:
        """Return the kinds of search that the operator may use."""
        return operator.role.kinds(self.settings.search_by)

    # --- looking, which is always noted, also when it fails or is refused -------------------------------------------

    async def search(self, operator: Operator, kind: str, value: str, *, action: str = "searched") -> Results:
        """Search for the profiles whose `kind` is exactly `value`.

        Raises:
            NotAllowed: the role may not search by this.
            ProfileEnrichError: the value cannot be looked up, or the Profile API did not answer.
        """
        subject = self.audit_log.subject(kind, value)
        if kind not in self.kinds(operator):
            # The kind is what somebody sent: it is noted only where it is one of those that exist.
            known = kind if kind in self.settings.search_by else ""
            self._note(operator, "refused", subject, "not allowed", kind=known)
            raise NotAllowed
        outcome = "interrupted"
        try:
            results = await self.finder.find(kind, value)
            outcome = {0: "not found", 1: "found"}.get(len(results.profiles), f"{len(results.profiles)} profiles")
        except ProfileEnrichError as error:
            outcome = error.code
            raise
        finally:
            self._note(operator, action, subject, outcome, kind=kind)
        return results

    def remember(self, operator: Operator, profiles: tuple[Found, ...]) -> list[str]:
        """Let the operator open these profiles, and return their pseudonyms for URLs."""
        subjects = [self.audit_log.subject("id", found.id) for found in profiles]
        for found, subject in zip(profiles, subjects, strict=True):
            self.handles.keep(operator.session.id, subject, found.id)
        return subjects

    async def view(self, operator: Operator, subject: str, id: str) -> Profile:
        """Read a profile that was found before.

        Raises:
            ProfileEnrichError: the Profile API did not answer.
        """
        outcome = "interrupted"
        try:
            profile = await self.finder.get(id)
            outcome = "found" if profile else "not found"
        except ProfileEnrichError as error:
            outcome = error.code
            raise
        finally:
            self._note(operator, "viewed", subject, outcome)
        return profile

    def shown(self, operator: Operator, action: str, *subjects: str) -> None:
        """Log that fields of these profiles are shown."""
        self.audit_log.note(operator.name, operator.role.name, action, *subjects, kind="id", outcome="found")

    def forget(self, operator: Operator, subject: str, id: str) -> None:
        """Remove a profile from the cache.

        Raises:
            NotAllowed: the role may not do this.
        """
        if not operator.role.forget:
            self._note(operator, "refused", subject, "not allowed")
            raise NotAllowed
        self.finder.forget(id)
        self._note(operator, "forgot", subject, "done")

    def _note(self, operator: Operator, action: str, subject: str, outcome: str, *, kind: str = "id") -> None:
        self.audit_log.note(operator.name, operator.role.name, action, subject, kind=kind, outcome=outcome)
