"""Admission: authenticate requests, and apply the rate limits of the keys."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ConfigurationError
from .auth.api_keys import ANYONE, ApiKey, KeyRing, Keys, bearer_of
from .auth.rate_limits import Quotas, Rate
from .cross_worker_state import BucketTable
from .dialects import amperity, census
from .endpoints.amperity_tokens import TokenIssuer
from .http.messages import Request
from .routing import Dialect

__all__ = ["Admission"]


class Admission:
    """The keys, the workspace and the rates of one server.

    Args:
        keys: the keys that give access.
        no_auth: whether to serve everybody, without a key.
        workspace: the served workspace; by default the one that all keys have.
        rate: the rate limit of keys that have none themselves.
        buckets: the token buckets.

    Raises:
        ConfigurationError: see `ProfileAPI`.
    """

    def __init__(
        self,
        keys: Iterable[ApiKey] | Keys | None,
        *,
        no_auth: bool,
        workspace: str | None,
        rate: Rate | str | None,
        buckets: BucketTable,
    ) -> None:
        ring = keys if isinstance(keys, Keys) else KeyRing(keys or ())
        if not ring and not no_auth:
            raise ConfigurationError(
                "the Profile API needs at least one key: keys=[ApiKey.from_secret(...)];"
                " to serve everybody, pass no_auth=True"
            )
        if no_auth and (ring or isinstance(keys, Keys)):
            raise ConfigurationError("keys and no_auth contradict each other; give one of them")
        if workspace is None and len(ring.workspaces) > 1:
            raise ConfigurationError("the keys belong to several workspaces; pass workspace= to choose the served one")
        self.workspace = workspace or next(iter(ring.workspaces), "default")
        if ring and self.workspace not in ring.workspaces:
            raise ConfigurationError("no key belongs to the served workspace, so every request would be rejected")
        self._ring = ring
        self.no_auth = no_auth
        self._quotas = Quotas(Rate.parse(rate) if isinstance(rate, str) else rate, buckets=buckets)

    def issuer(self, secret: bytes) -> TokenIssuer:
        """Return the issuer of access tokens.

        Args:
            secret: the store's secret.
        """
        return TokenIssuer(secret, self._ring, self.workspace)

    def authenticate(self, request: Request, dialect: Dialect, tokens: TokenIssuer) -> ApiKey | None:
        """Return the key of a request; `None` without a valid one."""
        if self.no_auth:
            return ANYONE
        values = request.header(b"authorization")
        if not values and dialect is census:
            values = request.header(b"authentication")  # as Census's page writes it
        bearer = bearer_of(values, basic=dialect is census)
        if bearer is None:
            return None
        key = self._ring.by_secret(bearer)
        return tokens.verify(bearer) if key is None and dialect is amperity else key

    def tenant(self, key: ApiKey) -> str | None:
        """Return the tenant that requests with this key must name; `None` for any."""
        return None if key is ANYONE else self.workspace

    def rate_of(self, key: ApiKey) -> Rate | None:
        """Return the rate that applies to a key."""
        return self._quotas.rate_of(key.rate)

    def admit(self, request: Request, key: ApiKey, cost: int) -> bool:
        """Take `cost` requests from the key's rate, and return whether it allows them."""
        taken = self._quotas.take(key.id, key.workspace, key.rate, cost)
        if taken is None:
            return True
        request.limits = taken.headers
        return taken.granted
