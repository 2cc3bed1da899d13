"""Access tokens of the Amperity dialect: expiring JWTs, issued by the vendor's two methods.

A token is signed (HMAC-SHA256, RFC 7515) with a key derived from the store's secret and the API key's hash. All workers
of a store accept it, and it becomes invalid with the API key and with its secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from ..._utils.strict_json import strict_decoder
from ..auth.api_keys import ApiKey, Keys, basic_credentials, bearer_of
from ..dialects import amperity
from ..http.messages import BadRequest, Request, Response, form_pairs, form_text, json_response, segment_text

__all__ = ["LIFETIME", "TokenIssuer"]

_DECODE = strict_decoder().decode

LIFETIME = 3600
"""The lifetime of a token of the OAuth endpoint, in seconds."""

_LONGEST = 366 * 86400
_NO_STORE = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))  # RFC 6749, section 5.1


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


_HEADER = _encode(json.dumps({"alg": "HS256", "typ": "JWT"}, separators=(",", ":")).encode())


def route(segments: list[bytes]) -> str | None:
    """Return the endpoint for the segments after `/api/v0`."""
    if segments == [b"oauth2", b"token"]:
        return "token.oauth"
    if len(segments) == 4 and segments[:2] == [b"admin", b"api-keys"] and segments[3] == b"tokens":
        return "token.exchange"
    return None


class TokenIssuer:
    """Issue and verify access tokens.

    Args:
        secret: the store's secret.
        keys: the API keys.
        workspace: the served tenant.
        clock: seconds since the epoch; injectable for tests.
    """

    def __init__(self, secret: bytes, keys: Keys, workspace: str, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._keys = keys
        self._workspace = workspace
        self._clock = clock

    def issue(self, key: ApiKey, expires_at: float) -> str:
        """Issue a token for this key."""
        claims = {"sub": key.id, "tnt": key.workspace, "iat": int(self._clock()), "exp": int(expires_at)}
        signed = _HEADER + b"." + _encode(json.dumps(claims, separators=(",", ":")).encode())
        return (signed + b"." + _encode(self._sign(key.digest, signed))).decode()

    def verify(self, token: bytes) -> ApiKey | None:
        """Return the API key of a token; `None` if the token was modified or has expired, or its key was removed."""
        signed, _, signature = token.rpartition(b".")
        header, _, payload = signed.partition(b".")
        if header != _HEADER:  # also rejects tokens with another algorithm, or none
            return None
        try:
            claims: Any = json.loads(base64.b64decode(payload + b"=" * (-len(payload) % 4), b"-_", validate=True))
        except (ValueError, RecursionError):
            return None
        facts = cast("dict[str, Any]", claims) if isinstance(claims, dict) else {}
        subject, expires = facts.get("sub"), facts.get("exp")
        key = self._keys.by_id(subject) if isinstance(subject, str) else None
        if key is None:
            return None
        # A token of the secret before a rotation is valid as long as that secret.
        digests = key.digests(self._clock())
        if not any([hmac.compare_digest(signature, _encode(self._sign(digest, signed))) for digest in digests]):  # noqa: C419  # all are compared
            return None
        return key if isinstance(expires, int) and expires > self._clock() else None

    def _sign(self, digest: bytes, signed: bytes) -> bytes:
        return hmac.digest(hmac.digest(self._secret, b"token\0" + digest, "sha256"), signed, hashlib.sha256)

    def answer(self, kind: str, request: Request, body: bytes) -> Response:
        """Answer a request to one of the two endpoints.

        Raises:
            BadRequest: the request is malformed.
        """
        tenant = amperity.tenant_of(request)
        if tenant is None:
            raise BadRequest("The header amperity-tenant is required, once.")
        respond = self._oauth if kind == "token.oauth" else self._exchange
        return respond(request, body, tenant)

    def _oauth(self, request: Request, body: bytes, tenant: bytes) -> Response:
        """Grant client credentials (RFC 6749, section 4.4): the client id is the key's id, the secret its secret.

        They are sent in the body or as HTTP Basic (section 2.3.1), not both.
        """
        pairs = form_pairs(body)
        form = dict(pairs)
        if len(form) != len(pairs):
            return json_response(400, {"error": "invalid_request"}, _NO_STORE)
        if form.get("grant_type") != "client_credentials":
            return json_response(400, {"error": "unsupported_grant_type"}, _NO_STORE)
        name, secret = form.get("client_id"), form.get("client_secret", "")
        scheme, _, encoded = (request.one_header(b"authorization") or b"").partition(b" ")
        with_basic = scheme.lower() == b"basic"
        if with_basic:
            basic = basic_credentials(encoded.strip())
            if basic is None or "client_secret" in form:
                return json_response(400, {"error": "invalid_request"}, _NO_STORE)
            name, secret = (form_text(part) for part in basic)  # form-encoded, by the RFC
        key = self._keys.by_secret(secret.removeprefix("secret-token:").encode())
        if key is None or key.id != name or not self._serves(key, tenant):
            headers = (*_NO_STORE, (b"www-authenticate", b"Basic")) if with_basic else _NO_STORE
            return json_response(401, {"error": "invalid_client"}, headers)
        token = self.issue(key, self._clock() + LIFETIME)
        return json_response(200, {"access_token": token, "expires_in": LIFETIME, "token_type": "Bearer"}, _NO_STORE)

    def _exchange(self, request: Request, body: bytes, tenant: bytes) -> Response:
        """Exchange the key's secret, sent as bearer, for a token with the given expiry (the older method)."""
        bearer = bearer_of(request.header(b"authorization"))
        key = None if bearer is None else self._keys.by_secret(bearer)
        if key is None or segment_text(request.segments[4]) != key.id or not self._serves(key, tenant):
            return amperity.error(401, "The issuer token is not valid for this API key.")
        until = _expires_at(body)
        now = self._clock()
        if not now < until <= now + _LONGEST:
            raise BadRequest("expires-at must be in the future, within a year.")
        moment = datetime.fromtimestamp(int(until), UTC).isoformat().replace("+00:00", "Z")
        return json_response(200, {"access-token": self.issue(key, until), "expires-at": moment}, _NO_STORE)

    def _serves(self, key: ApiKey, tenant: bytes) -> bool:
        return key.workspace == self._workspace and tenant == key.workspace.encode()


def _expires_at(body: bytes) -> float:
    try:
        content: Any = _DECODE(body.decode())
        text: Any = cast("dict[str, Any]", content).get("expires-at") if isinstance(content, dict) else None
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
        if at is not None and at.tzinfo is not None:
            return at.timestamp()
    except (ValueError, OverflowError, RecursionError):
        pass
    raise BadRequest('The body must be JSON: {"expires-at": "2030-01-31T12:00:00Z"}.')
