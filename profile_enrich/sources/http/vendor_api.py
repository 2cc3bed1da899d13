"""HTTP calls to a vendor's API, with statuses mapped to errors."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.datastructures import Secret

from ..._utils.deadline import Deadline
from ..._utils.log_once import LogOnce
from ..._version import __version__
from ...errors import (
    SourceAuthError,
    SourceError,
    SourceRateLimited,
    SourceRequestError,
    SourceResponseError,
    SourceUnavailable,
)
from ..base import Validators
from ..redactor import Redactor
from ..urls import is_loopback
from . import Headers, HttpRequest, HttpResponse, Transport
from .caching_headers import conditional_headers, http_date, retry_after
from .json_body import decode_json

__all__ = ["USER_AGENT", "HttpApi", "fingerprint"]

USER_AGENT = f"profile-enrich/{__version__}"

_logger = logging.getLogger("profile_enrich.sources")
_LARGEST_ENVELOPE = 64 * 1024
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-amzn-requestid", "x-amz-request-id")
_once = LogOnce()


def fingerprint(secret: str) -> str:
    """Return a one-way fingerprint of a secret, 16 hex characters."""
    return hashlib.blake2b(secret.encode(), digest_size=8, person=b"profile_enrich").hexdigest()


class HttpApi:
    """Client of a vendor's HTTP API.

    Args:
        vendor: the source's name, for messages.
        base_url: the validated base URL, without a trailing slash.
        transport: the transport that sends requests.
        secrets: strings that are redacted from every message.
        hints: text to append to the error message, by status.
    """

    def __init__(
        self,
        vendor: str,
        base_url: str,
        transport: Transport,
        *,
        secrets: Iterable[str] = (),
        hints: Mapping[int, str] | None = None,
    ) -> None:
        self.vendor = vendor
        self.base_url = base_url
        self.transport = transport
        self._secrets = tuple(Secret(secret) for secret in secrets)
        self._hints = hints or {}
        # On this machine, compressing takes longer than sending.
        coding = "identity" if is_loopback(urlsplit(base_url).hostname or "") else "gzip"
        self._sent = {"accept": "application/json", "accept-encoding": coding, "user-agent": USER_AGENT}

    async def get(
        self,
        path: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str],
        private: Collection[str] = (),
        validators: Validators | None = None,
        accept: Collection[int] = (200,),
    ) -> HttpResponse:
        """Send a GET request.

        Args:
            path: path and query under the base URL, percent-encoded.
            deadline: the deadline for the whole call.
            headers: additional headers, such as credentials.
            private: identifiers and secrets of this request, redacted from messages.
            validators: makes the request conditional; a 304 is then returned, too.
            accept: the statuses to return; any other is raised as an error.

        Raises:
            SourceError: a subclass says how it failed.
        """
        sent = {**self._sent, **headers}
        if validators is not None:
            sent.update(conditional_headers(validators))
        request = HttpRequest("GET", self.base_url + path, sent)
        response = await self.transport.send(request, deadline=deadline)
        return self._checked(response, private, accept if validators is None else (*accept, 304))

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        deadline: Deadline,
        headers: Mapping[str, str],
        private: Collection[str] = (),
        accept: Collection[int] = (200,),
    ) -> HttpResponse:
        """Send a POST request; otherwise like `get`."""
        sent = {**self._sent, **headers}
        request = HttpRequest("POST", self.base_url + path, sent, body)
        response = await self.transport.send(request, deadline=deadline)
        return self._checked(response, private, accept)

    def _checked(self, response: HttpResponse, private: Collection[str], accept: Collection[int]) -> HttpResponse:
        if "deprecation" in response.headers or "sunset" in response.headers:
            _notice(self.vendor, response.headers)
        if response.status in accept:
            return response
        raise self.failure(response, private)

    def failure(self, response: HttpResponse, private: Collection[str] = ()) -> SourceError:
        """Map a response to an error, with the vendor's redacted message."""
        needles = Redactor((*private, *map(str, self._secrets)))
        envelope = _envelope(response)
        said = needles.shown(_message(envelope))
        request_id = _request_id(response.headers, envelope, needles)
        status = response.status
        kind, meaning = _meaning(status)
        text = f"{self.vendor} {meaning}"
        if said is not None:
            text += f": {said}"
        if status in self._hints:
            text += f" ({self._hints[status]})"
        return kind(text, status=status, request_id=request_id, retry_after=retry_after(response.headers))

    def __repr__(self) -> str:
        return f"<HttpApi {self.vendor} at {self.base_url}>"


def _meaning(status: int) -> tuple[type[SourceError], str]:
    if status == 401:
        return SourceAuthError, "refused the credentials"
    if status == 403:
        return SourceAuthError, "refused permission"
    if status == 429:
        return SourceRateLimited, "rejected the request because of its rate limit"
    if status >= 500:
        return SourceUnavailable, "is not available"
    if status >= 400:
        return SourceRequestError, "refused the request"
    if status >= 300:
        return SourceResponseError, "redirected the request, which is not followed; check base_url"
    return SourceResponseError, "responded with an undocumented status"


def _envelope(response: HttpResponse) -> dict[str, Any]:
    if len(response.body) > _LARGEST_ENVELOPE:
        return {}
    try:
        value = decode_json(response.body)
    except SourceResponseError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _message(envelope: dict[str, Any]) -> object:
    # Amperity {"message"}, Census {"error": {"message"}}, OAuth {"error", "error_description"} (RFC 6749, section 5.2)
    error: Any = envelope.get("error")
    if isinstance(error, dict):
        inner = cast("dict[str, Any]", error)
        return inner.get("message") or inner.get("code")
    return envelope.get("message") or envelope.get("error_description") or error


def _request_id(headers: Headers, envelope: dict[str, Any], needles: Redactor) -> str | None:
    candidates = [envelope.get("request_id"), *(headers.get(name) for name in _REQUEST_ID_HEADERS)]
    for candidate in candidates:
        if isinstance(candidate, str) and re.fullmatch(r"[\x21-\x7e]{1,128}", candidate):
            return None if needles.found_in(candidate) else candidate
    return None


def _notice(vendor: str, headers: Headers) -> None:
    """Log `Deprecation` (RFC 9745) and `Sunset` (RFC 8594), once per process and source."""
    if not _once.first(vendor):
        return
    facts = [f"{name} {headers[name]}" for name in ("deprecation", "sunset") if _is_date(headers.get(name, ""))]
    _logger.warning(
        "%s announces that this version of its API will end%s; see its changelog",
        vendor,
        f" ({', '.join(facts)})" if facts else "",
    )


def _is_date(text: str) -> bool:
    return http_date(text) is not None or re.fullmatch(r"@[0-9]{1,12}|true", text) is not None
