"""Bearer tokens for sources: fetched on first use, renewed before they expire and after a 401."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, cast, runtime_checkable
from urllib.parse import urlencode

from starlette.datastructures import Secret

from .._utils.deadline import Deadline
from .._utils.validation import check_number, is_number
from ..errors import ConfigurationError, SourceAuthError, SourceRequestError, SourceResponseError
from .http import HttpResponse, Transport
from .http.json_body import decode_json, obj
from .http.vendor_api import HttpApi
from .shared_call import SharedCall
from .urls import check_base_url, check_header, path_segment

__all__ = ["ClientCredentials", "IssuerToken", "StaticToken", "TokenAuth", "token_expiry"]

RENEWAL_SECONDS = 10.0
"""The longest that one renewal may take, in seconds. A waiting lookup still stops at its own deadline."""


@runtime_checkable
class TokenAuth(Protocol):
    """A provider of bearer tokens. Several sources can share one."""

    async def token(self, transport: Transport, *, deadline: Deadline, refused: str | None = None) -> str:
        """Return a valid token.

        Args:
            transport: the source's transport, used to fetch a token.
            deadline: the deadline for the whole call.
            refused: a token that the vendor has just rejected with 401. If it is still the current token, a new one is
                fetched; otherwise the current one is returned.

        Raises:
            SourceAuthError: the credentials were refused.
            SourceError: a subclass says how else it failed.
        """
        ...

    async def aclose(self) -> None:
        """End a renewal that is under way on the running loop."""
        ...


def token_expiry(token: str) -> float | None:
    """Return the `exp` claim of a JWT (RFC 7519, section 4.1.4) in seconds since the epoch, or `None`.

    The signature is not verified: the claim only schedules the renewal, and the vendor verifies the token.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(parts[1]) > 100_000:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    expires: Any = cast("dict[str, Any]", claims).get("exp") if isinstance(claims, dict) else None
    if not is_number(expires) or not 0 <= expires < 1e12:
        return None
    return float(expires)


class StaticToken:
    """A fixed token. It is never renewed; after it expires, the vendor responds with 401.

    Args:
        token: the JWT.
    """

    def __init__(self, token: str | Secret) -> None:
        self._token = Secret(check_header(token, "token"))

    @property
    def expires_at(self) -> float | None:
        """The expiry in seconds since the epoch; `None` if the token has no `exp` claim."""
        return token_expiry(str(self._token))

    async def token(self, transport: Transport, *, deadline: Deadline, refused: str | None = None) -> str:
        """Return the token, even if it was refused."""
        return str(self._token)

    async def aclose(self) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        return "<StaticToken>"


@dataclass(frozen=True, slots=True, repr=False)
class _Issued:
    token: str
    renew_at: float


class _Renewing:
    """Base of tokens that are renewed `margin` seconds before expiry, or in the last quarter of a short lifetime."""

    def __init__(self, margin: float, clock: Callable[[], float]) -> None:
        self._margin = check_number("margin", margin)
        self._clock = clock
        self._issued: _Issued | None = None
        self._transport: Transport | None = None
        self._renewal: SharedCall[str] = SharedCall(self._renew, seconds=RENEWAL_SECONDS)

    async def token(self, transport: Transport, *, deadline: Deadline, refused: str | None = None) -> str:
        """Return a valid token; see `TokenAuth.token`. Concurrent callers share one renewal."""
        issued = self._issued
        if issued is not None and issued.token == refused:
            self._issued = issued = None
        if issued is not None and self._clock() < issued.renew_at:
            return issued.token
        self._transport = transport
        return await self._renewal.result(deadline)

    async def _renew(self, deadline: Deadline) -> str:
        assert self._transport is not None  # noqa: S101  # set before each renewal
        began = self._clock()
        token, lifetime = await self._fetch(self._transport, deadline)
        if lifetime is None:
            expires = token_expiry(token)
            lifetime = float("inf") if expires is None else max(0.0, expires - began)
        # Measured from before the request, since the vendor's lifetime cannot start earlier.
        self._issued = _Issued(token, began + lifetime - min(self._margin, lifetime / 4))
        return token

    def _fetch(self, transport: Transport, deadline: Deadline) -> Coroutine[Any, Any, tuple[str, float | None]]:
        """Fetch a new token and its lifetime in seconds; `None` if only its `exp` claim, or nothing, says it."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """End a renewal that is under way on the running loop."""
        await self._renewal.aclose()


class ClientCredentials(_Renewing):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4), for Amperity's token endpoint.

    Args:
        token_url: the URL of the token endpoint, as the vendor's page shows it, e.g.
            `"https://acme.amperity.com/api/v0/oauth2/token"`.
        client_id: the API key's client id.
        client_secret: the API key's client secret.
        tenant: sent as `X-Amperity-Tenant`.
        margin: seconds before its expiry that a token is renewed.
        allow_insecure_http: allow plain `http://` to a host other than this machine.
        clock: seconds since the epoch; injectable for tests.

    Raises:
        ConfigurationError: an argument makes no sense; the message names it.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | Secret,
        tenant: str,
        *,
        margin: float = 60.0,
        allow_insecure_http: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(margin, clock)
        self._url = check_base_url(token_url, argument="token_url", allow_insecure_http=allow_insecure_http)
        self._client_id = check_header(client_id, "client_id")
        self._secret = Secret(check_header(client_secret, "client_secret"))
        self._tenant = check_header(tenant, "tenant")

    async def _fetch(self, transport: Transport, deadline: Deadline) -> tuple[str, float | None]:
        form = {
            "client_id": self._client_id,
            "client_secret": str(self._secret),
            "grant_type": "client_credentials",
        }
        headers = {"content-type": "application/x-www-form-urlencoded", "x-amperity-tenant": self._tenant}
        answer = await _ask(self._url, "", urlencode(form), headers, transport, deadline, (str(self._secret),))
        lifetime = answer.get("expires_in")
        if lifetime is not None and not is_number(lifetime):
            raise SourceResponseError("the token endpoint's answer is not as documented: expires_in is not a number")
        return _token(answer, ("access_token",)), None if lifetime is None else max(0.0, float(lifetime))

    def __repr__(self) -> str:
        return f"<ClientCredentials at {self._url}>"


class IssuerToken(_Renewing):
    """Amperity's older authentication: exchange an issuer token for access tokens.

    Args:
        key_id: the API key's id.
        issuer_token: the API key's issuer token.
        tenant: sent as `X-Amperity-Tenant`.
        base_url: the base URL of the API, e.g. `"https://acme.amperity.com/api"`.
        lifetime: the lifetime to request for a token, in seconds.
        margin: seconds before its expiry that a token is renewed.
        allow_insecure_http: allow plain `http://` to a host other than this machine.
        clock: seconds since the epoch; injectable for tests.

    Raises:
        ConfigurationError: an argument makes no sense; the message names it.
    """

    def __init__(
        self,
        key_id: str,
        issuer_token: str | Secret,
        tenant: str,
        base_url: str,
        *,
        lifetime: float = 3600.0,
        margin: float = 60.0,
        allow_insecure_http: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(margin, clock)
        check_number("lifetime", lifetime, least=1, most=366 * 86_400)
        if check_header(key_id, "key_id") in (".", ".."):
            raise ConfigurationError("key_id must be the API key's id")
        self._path = f"/v0/admin/api-keys/{path_segment(key_id)}/tokens"
        self._secret = Secret(check_header(issuer_token, "issuer_token"))
        self._tenant = check_header(tenant, "tenant")
        self._base = check_base_url(base_url, allow_insecure_http=allow_insecure_http)
        self._lifetime = lifetime

    async def _fetch(self, transport: Transport, deadline: Deadline) -> tuple[str, float | None]:
        until = datetime.fromtimestamp(self._clock() + self._lifetime, UTC).isoformat(timespec="seconds")
        headers = {
            "authorization": f"Bearer {self._secret!s}",
            "content-type": "application/json",
            "x-amperity-tenant": self._tenant,
        }
        body = json.dumps({"expires-at": until.replace("+00:00", "Z")})
        answer = await _ask(self._base, self._path, body, headers, transport, deadline, (str(self._secret),))
        # The vendor does not document the field; these are the spellings in its other responses.
        token = _token(answer, ("access-token", "access_token", "token", "jwt"))
        return token, None if token_expiry(token) is not None else self._lifetime

    def __repr__(self) -> str:
        return f"<IssuerToken at {self._base}>"


async def _ask(
    base: str,
    path: str,
    body: str,
    headers: Mapping[str, str],
    transport: Transport,
    deadline: Deadline,
    secrets: tuple[str, ...],
) -> dict[str, Any]:
    api = HttpApi("the token endpoint", base, transport, secrets=secrets)
    response: HttpResponse = await api.post(
        path, body.encode(), deadline=deadline, headers=headers, accept=(200, 201, 400, 401)
    )
    if response.status in (400, 401):  # RFC 6749, section 5.2: both mean that the credentials were refused
        failure = api.failure(response)
        if isinstance(failure, SourceRequestError):
            raise SourceAuthError(failure.message, status=failure.status, request_id=failure.request_id)
        raise failure
    return obj(decode_json(response.body, url="base_url" if path else "token_url"), "the token answer")


def _token(answer: Mapping[str, object], names: tuple[str, ...]) -> str:
    for name in names:
        value = answer.get(name)
        if isinstance(value, str) and value and all("\x21" <= char <= "\x7e" for char in value):
            return value
    raise SourceResponseError(f"the token endpoint's answer is not as documented: it holds no {names[0]}")
