"""Validators and freshness of an upstream response."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Freshness", "Validators"]


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators of a conditional request (RFC 9110, section 13).

    Args:
        etag: the `ETag` of the cached copy, as received.
        last_modified: its `Last-Modified`, as received.
    """

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long the upstream allows its response to be cached (RFC 9111, section 5.2.2).

    Args:
        max_age: seconds from `Cache-Control: max-age`, minus `Age`; `None` if absent.
        no_store: whether `no-store` was sent.
        validators: for a conditional request later on.
    """

    max_age: float | None = None
    no_store: bool = False
    validators: Validators | None = None
