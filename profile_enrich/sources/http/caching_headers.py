"""Caching headers of responses (RFC 9111) and of conditional requests (RFC 9110, section 13)."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

from ..base import Freshness, Validators
from . import Headers

__all__ = ["conditional_headers", "freshness", "http_date", "retry_after"]

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE = re.compile(rf'\s*({_NAME})(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^,]*))?\s*(?:,|$)')
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_MOST_SECONDS = 2**31  # RFC 9111, section 1.2.2
_SILENT = Freshness()
_LONGEST_VALIDATOR = 1024


def freshness(headers: Headers) -> Freshness:
    """Parse how long a response may be cached.

    `no-cache` counts as `max-age=0`. An invalid value counts as stale, and the smallest of several values applies (RFC
    9111, section 4.2.1). `s-maxage` is ignored, since it is meant for shared HTTP caches.
    """
    max_age: float | None = None
    no_store = False
    if "cache-control" in headers:
        ages: list[float] = []
        for name, value in _directives(headers["cache-control"]):
            if name == "no-store":
                no_store = True
            elif name == "no-cache":
                ages.append(0.0)
            elif name == "max-age":
                ages.append(_seconds(value.strip('" '), otherwise=0.0))
        if ages:
            max_age = min(ages)
    if max_age is not None and "age" in headers:
        max_age = max(0.0, max_age - _seconds(headers["age"].split(",")[0].strip(), otherwise=0.0))
    validators = _validators(headers)
    if max_age is None and not no_store and validators is None:
        return _SILENT
    return Freshness(max_age=max_age, no_store=no_store, validators=validators)


def _directives(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = _DIRECTIVE.match(text, at)
        if match is None:  # skip invalid text up to the next comma
            at = text.find(",", at) + 1 or len(text)
            continue
        found.append((match[1].lower(), match[2] or ""))
        at = match.end()
    return found


def _seconds(text: str, *, otherwise: float) -> float:
    if not (text.isascii() and text.isdigit()):
        return otherwise
    return float(_MOST_SECONDS if len(text) > 10 else min(int(text), _MOST_SECONDS))


def _validators(headers: Headers) -> Validators | None:
    if "etag" not in headers and "last-modified" not in headers:
        return None
    etag, modified = headers.get("etag"), headers.get("last-modified")
    if etag is not None and (len(etag) > _LONGEST_VALIDATOR or not _ETAG.fullmatch(etag)):
        etag = None
    if modified is not None and http_date(modified) is None:
        modified = None
    return None if etag is None and modified is None else Validators(etag=etag, last_modified=modified)


def conditional_headers(validators: Validators | None) -> dict[str, str]:
    """Return the headers of a conditional request; the entity tag takes precedence (RFC 9110, section 13.1.3)."""
    if validators is None:
        return {}
    if validators.etag is not None:
        return {"if-none-match": validators.etag}
    return {"if-modified-since": validators.last_modified} if validators.last_modified is not None else {}


def http_date(text: str) -> float | None:
    """Parse an HTTP date to seconds since the epoch; `None` if it is invalid."""
    if not text.isascii() or len(text) > 64:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def retry_after(headers: Headers) -> float | None:
    """Return the seconds of `Retry-After` (RFC 9110, section 10.2.3), or `None`.

    A date is compared with the response's `Date` header, so the local clock does not matter.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return _seconds(text, otherwise=0.0)
    until = http_date(text)
    if until is None:
        return None
    now = http_date(headers.get("date", ""))
    return min(max(0.0, until - (time.time() if now is None else now)), float(_MOST_SECONDS))
