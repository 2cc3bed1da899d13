"""The in-session customer's profile on every request, from any profile API.

Whoever is in session, their customer profile is on the request: within a time budget, without ever breaking the page.
"""

from ._version import __version__
from .blocking import BlockingProfileClient
from .client import ProfileClient
from .consent import honour_gpc
from .dependencies import ProfileDependency, get_profile, lookup_details, personalised, require_profile
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
from .hooks import BreakerDetails, FlightDetails, Health, LookupDetails, Stats
from .identity import (
    first_of,
    from_cookie,
    from_header,
    from_session,
    from_signed_cookie,
    from_user,
    hashed_email,
)
from .limits import Breaker, RateLimit, RetryPolicy
from .middleware import ProfileMiddleware
from .pipeline import enrich, enrich_blocking
from .profile import Profile, ProfileKey, Reason, Record, Status
from .sources._transport import TransportOptions
from .sources.amperity import AmperitySource
from .sources.auth import ClientCredentials, IssuerToken, StaticToken
from .sources.base import BatchSource, Excluded, Found, NotFound, NotModified, ProfileSource
from .sources.census import CensusSource
from .sources.memory import MemorySource
from .sources.store import StoreSource

__all__ = [
    "AmbiguousMatch",
    "AmperitySource",
    "BatchSource",
    "BlockingProfileClient",
    "Breaker",
    "BreakerDetails",
    "BudgetExceeded",
    "CensusSource",
    "CircuitOpen",
    "ClientClosed",
    "ClientCredentials",
    "ConfigurationError",
    "CursorError",
    "Excluded",
    "FlightDetails",
    "Found",
    "Health",
    "InvalidKeyError",
    "IssuerToken",
    "LookupDetails",
    "MemorySource",
    "MissingAttribute",
    "MissingExtraError",
    "MissingKeyError",
    "ModelMismatch",
    "NotFound",
    "NotModified",
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
    "SourceAuthError",
    "SourceConnectionError",
    "SourceError",
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
    "lookup_details",
    "personalised",
    "require_profile",
]
