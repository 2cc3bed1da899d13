"""The strip at the bottom of each page, which shows the lookup of its profile."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from profile_enrich import ProfileClient, Reason, Status, lookup_details

from .sessions import consents, signed_in

MEANINGS = {
    Status.HIT: "from the cache, fresh",
    Status.STALE: "from the cache, stale; a refresh is running",
    Status.NEGATIVE: "from the cache: there is no such profile",
    Status.MISS: "from the Profile API",
    Status.COALESCED: "shared another page’s call to the Profile API",
    Status.TIMEOUT: "the Profile API took too long; the page went on without",
}


@dataclass(frozen=True, slots=True)
class Strip:
    """The contents of the strip.

    Args:
        status: how the lookup was answered.
        meaning: that in words.
        age: seconds since the Profile API was asked, in words; empty without a profile.
        milliseconds: how long the page waited for it.
        source_calls: how often the Profile API was asked since the shop was opened, for all pages and people.
        lookups: how many lookups were answered in that time.
        can_act: whether there is a profile that can be dropped or refreshed.
        api_runs: whether the Profile API runs; `None` where no launcher can tell.
    """

    status: str
    meaning: str
    age: str
    milliseconds: str
    source_calls: int
    lookups: int
    can_act: bool
    api_runs: bool | None


def strip_of(request: Request, client: ProfileClient, api_runs: bool | None = None) -> Strip:
    """Return the strip of a page."""
    details = lookup_details(request)
    stats = client.stats()
    status = Status.SKIPPED if details is None else details.status
    meaning = MEANINGS.get(status, "nobody is signed in, so no lookup was made")
    failing = "failed a moment ago and will be asked again" if api_runs else "cannot be reached"
    if status is Status.ERROR:
        meaning = f"the Profile API {failing}; the page went on without"
    if status is Status.STALE and request.state.profile.error is not None:
        meaning = f"from the cache; the Profile API {failing}"
    if details is not None and details.reason is Reason.NOT_FOUND and status is Status.MISS:
        meaning = "from the Profile API: there is no such profile"
    if details is not None and details.reason is Reason.NO_CONSENT:
        meaning = "no consent, so no lookup was made"
    return Strip(
        status=status.value,
        meaning=meaning,
        age="" if details is None or details.age is None else duration(details.age),
        milliseconds=f"{0.0 if details is None else details.seconds * 1000:.2f}",
        source_calls=stats.source_calls,
        lookups=stats.total - stats.lookups.get(Status.SKIPPED, 0),
        can_act=signed_in(request) is not None and consents(request),
        api_runs=api_runs,
    )


def duration(seconds: float) -> str:
    """`7 s`, `3 min`, `2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
