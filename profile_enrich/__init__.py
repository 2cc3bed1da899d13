"""Attach the signed-in customer's profile to every request, from any profile API, within a time budget."""

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .cache.cache_policy import CachePolicy
from .cache.shared.second_level import SharedStats
from .cache.shared.shared_cache import SharedCache
from .client.blocking import BlockingProfileClient
from .client.breaker import Breaker
from .client.client import ProfileClient
from .client.hooks import BreakerDetails, Health, LoadDetails, LookupDetails, Stats
from .client.lookup_decision import PendingLookup
from .client.rate_limit import RateLimit
from .client.retry import RetryPolicy
from .client.source_policy import SourcePolicy
from .errors import (
    AmbiguousMatch,
    BudgetExceeded,
    CircuitOpen,
    ClientClosed,
    ConfigurationError,
    CursorError,
    InvalidKeyError,
    MissingAttribute,
    MissingExtraError,
    MissingKeyError,
    ModelMismatch,
    ProfileEnrichError,
    ProfileMissing,
    ProfileRequired,
    ProfileUnavailable,
    RateLimitReached,
    SharedCacheUnavailable,
    SourceAuthError,
    SourceConnectionError,
    SourceError,
    SourceRateLimited,
    SourceRequestError,
    SourceResponseError,
    SourceTimeout,
    SourceUnavailable,
    StoreBusy,
    StoreError,
    TooManyErrors,
)
from .pipeline import EnrichOptions, enrich, enrich_blocking
from .profile import Profile, ProfileKey, Reason, Record, Status
from .sources.amperity import AmperitySource
from .sources.base import BatchSource, Excluded, Found, NotFound, NotModified, ProfileSource
from .sources.bearer_tokens import ClientCredentials, IssuerToken, StaticToken
from .sources.census import CensusSource
from .sources.http import TransportOptions
from .sources.memory import MemorySource
from .web.consent_functions import honour_gpc
from .web.identity_functions import first_of, from_cookie, from_header, from_session, from_user, hashed_email
from .web.middleware import ProfileMiddleware
from .web.profile_dependencies import (
    ProfileDependency,
    get_profile,
    lookup_details,
    personalised,
    refresh_profile,
    require_profile,
)
from .web.signed_cookie import SignedCookie, from_signed_cookie
from .web.user_callbacks import in_thread

if TYPE_CHECKING:
    from .sources.store import StoreSource

__all__ = [
    "AmbiguousMatch",
    "AmperitySource",
    "BatchSource",
    "BlockingProfileClient",
    "Breaker",
    "BreakerDetails",
    "BudgetExceeded",
    "CachePolicy",
    "CensusSource",
    "CircuitOpen",
    "ClientClosed",
    "ClientCredentials",
    "ConfigurationError",
    "CursorError",
    "EnrichOptions",
    "Excluded",
    "Found",
    "Health",
    "InvalidKeyError",
    "IssuerToken",
    "LoadDetails",
    "LookupDetails",
    "MemorySource",
    "MissingAttribute",
    "MissingExtraError",
    "MissingKeyError",
    "ModelMismatch",
    "NotFound",
    "NotModified",
    "PendingLookup",
    "Profile",
    "ProfileClient",
    "ProfileDependency",
    "ProfileEnrichError",
    "ProfileKey",
    "ProfileMiddleware",
    "ProfileMissing",
    "ProfileRequired",
    "ProfileSource",
    "ProfileUnavailable",
    "RateLimit",
    "RateLimitReached",
    "Reason",
    "Record",
    "RetryPolicy",
    "SharedCache",
    "SharedCacheUnavailable",
    "SharedStats",
    "SignedCookie",
    "SourceAuthError",
    "SourceConnectionError",
    "SourceError",
    "SourcePolicy",
    "SourceRateLimited",
    "SourceRequestError",
    "SourceResponseError",
    "SourceTimeout",
    "SourceUnavailable",
    "StaticToken",
    "Stats",
    "Status",
    "StoreBusy",
    "StoreError",
    "StoreSource",
    "TooManyErrors",
    "TransportOptions",
    "__version__",
    "enrich",
    "enrich_blocking",
    "first_of",
    "from_cookie",
    "from_header",
    "from_session",
    "from_signed_cookie",
    "from_user",
    "get_profile",
    "hashed_email",
    "honour_gpc",
    "in_thread",
    "lookup_details",
    "personalised",
    "refresh_profile",
    "require_profile",
]


def __getattr__(name: str) -> Any:
    if name == "StoreSource":  # imported on first use, because it loads SQLite and the store
        from .sources.store import StoreSource

        return StoreSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
