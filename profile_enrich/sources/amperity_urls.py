"""Base URLs and paths of Amperity's Profile API."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .._utils.validation import check_int
from ..errors import ConfigurationError
from .urls import path_segment, query_value

__all__ = ["base_of", "filters_of", "index_path", "query"]

_REGIONS = {
    "aws": "https://app.amperity.com/api",
    "azure": "https://{tenant}.amperity.com/api",
    "australia": "https://app-aws-apse2.amperity.com/api",
}


def base_of(region: str, tenant: str) -> str:
    """Return the base URL of a region.

    Raises:
        ConfigurationError: the region is unknown, or the tenant cannot be part of a host name.
    """
    if not isinstance(region, str) or region not in _REGIONS:
        raise ConfigurationError(f"region must be one of {', '.join(map(repr, _REGIONS))}")
    host = re.sub(r"-sb-[A-Za-z0-9]+$", "", tenant)  # a sandbox has the base URL of its production tenant
    if region == "azure" and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", host):
        raise ConfigurationError("tenant cannot be part of a host name; give base_url as the vendor shows it")
    return _REGIONS[region].format(tenant=host)


def index_path(id: str, path: str) -> str:
    """Return a path below an index."""
    return f"/indexes/{path_segment(id, 'the index id')}{path}"


def filters_of(filters: Mapping[str, str]) -> list[str]:
    """Encode filters as query parameters.

    Raises:
        InvalidKeyError: a name or value is not a string.
    """
    return [
        f"filter%5B{query_value(name, 'a filter name')}%5D={query_value(value, 'a filter value')}"
        for name, value in filters.items()
    ]


def query(parts: list[str], limit: int, next_token: str | None, with_total: bool) -> str:
    """Return the query string of a list; `parts` must be encoded.

    Raises:
        ConfigurationError: the limit is invalid.
    """
    check_int("limit", limit)
    given = [f"limit={limit}", *parts]
    if next_token is not None:
        given.append(f"next_token={query_value(next_token, 'next_token')}")
    if with_total:
        given.append("with_total=true")
    return "?" + "&".join(given)
