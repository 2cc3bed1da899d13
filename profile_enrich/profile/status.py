"""How a lookup was answered, and why a profile is empty."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason", "Status"]


class Status(StrEnum):
    """How a lookup was answered. Each lookup has exactly one."""

    HIT = "hit"
    """From the cache, fresh."""
    STALE = "stale"
    """From the cache, no longer fresh; a refresh was started or is throttled."""
    NEGATIVE = "negative"
    """From the cache: the source said a moment ago that there is none."""
    MISS = "miss"
    """The source was asked, and answered."""
    COALESCED = "coalesced"
    """Another lookup of the same key was already asking the source; its answer was shared."""
    TIMEOUT = "timeout"
    """The budget ran out first."""
    ERROR = "error"
    """The source failed and nothing stale was at hand."""
    SKIPPED = "skipped"
    """No lookup was made: nobody in session, no consent, an excluded path, or the own rate limit is used up."""


class Reason(StrEnum):
    """Why a profile is empty."""

    NOT_FOUND = "not_found"
    """The source has no such profile."""
    EXCLUDED = "excluded"
    """The vendor excludes it (opt-out, consent filter)."""
    ANONYMOUS = "anonymous"
    """Nobody is in session."""
    NO_CONSENT = "no_consent"
    """The person in session did not consent to the lookup."""
    NOT_LOOKED_UP = "not_looked_up"
    """The path is excluded, or the middleware is not installed."""
    UNAVAILABLE = "unavailable"
    """Time ran out or the source failed; `profile.error` says which."""
    SEALED = "sealed"
    """The request has left the middleware; see `ProfileMiddleware`."""
