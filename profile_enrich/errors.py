"""Every error that `profile_enrich` raises.

```text
ProfileEnrichError                   code
├── ConfigurationError (ValueError)  configuration      an argument, a setting or the vendor's set-up is wrong
│   ├── MissingExtraError (ImportError) missing_extra   an optional dependency is not installed
│   ├── MissingVariable              missing_variable   a worker's environment lacks a variable that holds a secret
│   └── SecretByValue                secret_by_value    a secret was handed in where it would travel with a job
├── InvalidKeyError (ValueError)     invalid_key        this key cannot be looked up; no call was made
│   └── MissingKeyError              missing_key        the record has no key: the field is absent, null or empty
├── ProfileMissing                   profile_missing    a record of a pipeline has no profile, and may not go without
├── TooManyErrors                    too_many_errors    a pipeline ended because more records failed than allowed
├── InputError (ValueError)          bad_input          a pipeline's input cannot be read; the place is in the message
├── ModelMismatch (ValueError)       model_mismatch     a profile does not fit a class; `.problems` says where
├── MissingAttribute                 missing_attribute  a profile lacks what an audience asks for
├── CursorError (ValueError)         bad_cursor         a page token was refused
├── StoreError                       store              the local store cannot be read or written
│   └── StoreBusy                    store_busy         another build of the store is running
├── SharedCacheUnavailable           shared_cache_unavailable an invalidation was not acknowledged in time
├── ProfileUnavailable               unavailable        the question could not be answered now
│   ├── BudgetExceeded (TimeoutError) budget_exceeded   the caller's budget ran out; the load goes on
│   ├── ClientClosed                 client_closed      the ProfileClient was closed
│   └── SourceError                  source             the source failed
│       ├── SourceTimeout (TimeoutError) source_timeout no whole answer by the deadline
│       ├── SourceConnectionError    source_connection  no connection, or it broke
│       ├── SourceUnavailable        source_unavailable the vendor answered 5xx
│       ├── SourceRateLimited        source_rate_limited the vendor answered 429 (`retry_after`)
│       ├── SourceAuthError          source_auth        the vendor refused the credentials (401, 403)
│       ├── SourceRequestError       source_request     the vendor refused the request (another 4xx)
│       ├── SourceResponseError      source_response    the vendor's answer makes no sense
│       ├── AmbiguousMatch           ambiguous_match    more than one profile has this key
│       ├── CircuitOpen              circuit_open       no call was made: the source failed several times in a row
│       └── RateLimitReached         rate_limit         no call was made: the own rate limit is used up
└── ProfileRequired (HTTPException)  profile_required   `require_profile` found none; see `.reason`
```

Each class has a stable `code`, meant for metrics, alerts and switches. No message, argument or attribute of an error
carries an identifier, an attribute value or a secret.
"""

from __future__ import annotations

from typing import Any, ClassVar

from starlette.exceptions import HTTPException

__all__ = [
    "AmbiguousMatch",
    "BudgetExceeded",
    "CircuitOpen",
    "ClientClosed",
    "ConfigurationError",
    "CursorError",
    "InputError",
    "InvalidKeyError",
    "MissingAttribute",
    "MissingExtraError",
    "MissingKeyError",
    "MissingVariable",
    "ModelMismatch",
    "ProfileEnrichError",
    "ProfileMissing",
    "ProfileRequired",
    "ProfileUnavailable",
    "RateLimitReached",
    "SecretByValue",
    "SharedCacheUnavailable",
    "SourceAuthError",
    "SourceConnectionError",
    "SourceError",
    "SourceRateLimited",
    "SourceRequestError",
    "SourceResponseError",
    "SourceTimeout",
    "SourceUnavailable",
    "StoreBusy",
    "StoreError",
    "TooManyErrors",
]


class ProfileEnrichError(Exception):
    """The root of the tree: catch it to catch all that this package raises."""

    code: ClassVar[str] = "profile_enrich"

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """The message, free of personal data and secrets."""
        return str(self.args[0]) if self.args else ""


class ConfigurationError(ProfileEnrichError, ValueError):
    """An argument, a setting or the vendor's set-up is wrong; the message names it and the remedy."""

    code = "configuration"


class MissingExtraError(ConfigurationError, ImportError):
    """A feature needs an optional dependency that is not installed.

    Args:
        feature: what needs the extra, e.g. `"the aiohttp transport"`.
        extra: the extra that brings it, e.g. `"aiohttp"`.
    """

    code = "missing_extra"

    def __init__(self, feature: str, extra: str = "") -> None:
        # `copy` and `pickle` rebuild an exception from its single argument.
        text = f"{feature} needs an extra: pip install 'profile-enrich[{extra}]'" if extra else feature
        super().__init__(text)


class MissingVariable(ConfigurationError):
    """The environment of this worker lacks a variable that holds a secret; the message names the variable."""

    code = "missing_variable"


class SecretByValue(ConfigurationError):
    """A secret was handed in itself, and would travel with the job; hand in the name of a variable that holds it."""

    code = "secret_by_value"


class InvalidKeyError(ProfileEnrichError, ValueError):
    """The key cannot be looked up (empty, not text, too long, of a type that the source has not); no call was made."""

    code = "invalid_key"


class InputError(ProfileEnrichError, ValueError):
    """The input of a pipeline cannot be read, or one of its records is malformed; the message names the place."""

    code = "bad_input"


class MissingKeyError(InvalidKeyError):
    """The record of a pipeline has no key: the field is absent, null or empty. No call was made."""

    code = "missing_key"


class ProfileMissing(ProfileEnrichError):
    """A record of a pipeline has no profile, with `on_missing="raise"`."""

    code = "profile_missing"


class TooManyErrors(ProfileEnrichError):
    """A pipeline ended because more of its records failed than `max_errors` allows."""

    code = "too_many_errors"


class ModelMismatch(ProfileEnrichError, ValueError):
    """A profile does not fit the class that `Profile.as_model` was given.

    Args:
        message: the class, and what to do.
        problems: each place that does not fit, as its path and what is wrong there, e.g. `("age", "missing")` or
            `("address.zip", "expected `int`, got `str`")`. Never a value.
    """

    code = "model_mismatch"

    def __init__(self, message: str = "", *, problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class MissingAttribute(ProfileEnrichError):
    """A profile lacks an attribute that an `Audience` needs, or its value cannot be compared."""

    code = "missing_attribute"


class CursorError(ProfileEnrichError, ValueError):
    """A page token was refused: changed, of another collection or filter, or of data that are gone."""

    code = "bad_cursor"


class StoreError(ProfileEnrichError):
    """The local store cannot be opened, read or written."""

    code = "store"


class StoreBusy(StoreError):
    """Another build or refresh of the store is running; nothing was changed."""

    code = "store_busy"


class ProfileUnavailable(ProfileEnrichError):
    """The question could not be answered now. Nothing is known about whether the profile exists."""

    code = "unavailable"


class BudgetExceeded(ProfileUnavailable, TimeoutError):
    """The caller's budget ran out first. The load goes on and fills the cache for the next caller."""

    code = "budget_exceeded"


class ClientClosed(ProfileUnavailable):
    """The `ProfileClient` was closed and takes no more lookups."""

    code = "client_closed"


class SharedCacheUnavailable(ProfileEnrichError):
    """The other processes did not acknowledge an invalidation in time. It is repeated until they do."""

    code = "shared_cache_unavailable"


class SourceError(ProfileUnavailable):
    """The source failed.

    Args:
        message: what happened, without identifiers, attribute values and secrets.
        status: the HTTP status, where there was one.
        request_id: the vendor's id of the request, where it gave one; quote it to their support.
        retry_after: seconds that the vendor asked to wait, where it did.
    """

    code = "source"

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        facts: list[Any] = []
        if self.status is not None:
            facts.append(f"status {self.status}")
        if self.request_id is not None:
            facts.append(f"request id {self.request_id}")
        return f"{self.message} ({', '.join(facts)})" if facts else self.message


class SourceTimeout(SourceError, TimeoutError):
    """The source gave no whole answer by the deadline."""

    code = "source_timeout"


class SourceConnectionError(SourceError):
    """No connection to the source, or it broke off."""

    code = "source_connection"


class SourceUnavailable(SourceError):
    """The vendor answered 5xx."""

    code = "source_unavailable"


class SourceRateLimited(SourceError):
    """The vendor answered 429; `retry_after` says how many seconds it asked to wait, if it did."""

    code = "source_rate_limited"


class SourceAuthError(SourceError):
    """The vendor refused the credentials (401) or the permission (403)."""

    code = "source_auth"


class SourceRequestError(SourceError):
    """The vendor refused the request with another 4xx."""

    code = "source_request"


class SourceResponseError(SourceError):
    """The answer is not what the vendor documents: not JSON, of another shape, too large, cut short."""

    code = "source_response"


class AmbiguousMatch(SourceError):
    """More than one profile has this key, and the source was not configured to take the first."""

    code = "ambiguous_match"


class CircuitOpen(SourceError):
    """No call was made: the source failed several times in a row, and is left alone for a while."""

    code = "circuit_open"


class RateLimitReached(SourceError):
    """No call was made: the rate limit that was set for this source is used up for the moment."""

    code = "rate_limit"


class ProfileRequired(ProfileEnrichError, HTTPException):
    """`require_profile` found no profile. Starlette and FastAPI answer with its `status_code`.

    Args:
        message: what is missing.
        status_code: the corresponding HTTP status.
        reason: the value of the profile's `reason`.
    """

    code = "profile_required"

    def __init__(self, message: str = "", *, status_code: int = 503, reason: str = "unavailable") -> None:
        HTTPException.__init__(self, status_code, detail=message)
        self.args = (message,)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status_code}: {self.message}"
