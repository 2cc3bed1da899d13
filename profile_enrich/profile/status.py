"""`Status` and `Reason`: how a profile was obtained, and why it is empty."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason", "Status"]


class Status(StrEnum):
    """How a profile was obtained. Each lookup has exactly one status."""

    HIT = "hit"
    """From the cache, fresh."""
    STALE = "stale"
    """From the cache, stale; a refresh was started or is throttled."""
    NEGATIVE = "negative"
    """From the cache: known to be missing."""
    MISS = "miss"
    """Loaded from the source."""
    COALESCED = "coalesced"
    """Loaded by a concurrent lookup of the same key."""
    TIMEOUT = "timeout"
    """The budget ran out first."""
    ERROR = "error"
    """The source failed, and there was no stale entry."""
    SKIPPED = "skipped"
    """No lookup was made: nobody signed in, no consent, an excluded path, or the rate limit is exhausted."""


class Reason(StrEnum):
    """Why a profile is empty."""

    NOT_FOUND = "not_found"
    """The source has no such profile."""
    EXCLUDED = "excluded"
    """The vendor excludes it (opt-out, consent filter)."""
    ANONYMOUS = "anonymous"
    """Nobody is signed in."""
    NO_CONSENT = "no_consent"
    """The person did not consent to the lookup."""
    NOT_LOOKED_UP = "not_looked_up"
    """The path is excluded, or the middleware is not installed."""
    UNAVAILABLE = "unavailable"
    """The budget ran out or the source failed; see `profile.error`."""
    SEALED = "sealed"
    """The request has left the middleware; see `ProfileMiddleware`."""
