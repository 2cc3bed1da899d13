"""What an upstream says about how long its answer may be kept."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Freshness", "Validators"]


@dataclass(frozen=True, slots=True)
class Validators:
    """What a conditional request is made of (RFC 9110, section 13).

    Args:
        etag: the `ETag` of the copy at hand, as it was sent.
        last_modified: its `Last-Modified`, as it was sent.
    """

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Freshness:
    """What the upstream said about how long its answer may be kept (RFC 9111, section 5.2.2).

    Args:
        max_age: seconds from `Cache-Control: max-age`, less `Age`; `None` when it said nothing.
        no_store: it said `no-store`.
        validators: for a conditional request later on.
    """

    max_age: float | None = None
    no_store: bool = False
    validators: Validators | None = None
