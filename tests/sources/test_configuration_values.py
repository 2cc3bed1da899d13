"""A value that is missing, empty or of the wrong type is refused when the object is made, everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.datastructures import Secret

from profile_enrich import (
    AmperitySource,
    CachePolicy,
    CensusSource,
    ClientCredentials,
    ConfigurationError,
    IssuerToken,
    MemorySource,
    ProfileClient,
    SourcePolicy,
    StaticToken,
    StoreSource,
    TransportOptions,
)

Make = Callable[..., Any]

NOT_TEXT: list[object] = [None, "", " ", b"secret", ["secret"], 3, True, Secret(None)]  # type: ignore[arg-type]
NOT_OPTIONAL_TEXT: list[object] = ["", " ", b"secret", ["secret"], 3, True]
NOT_A_SWITCH: list[object] = [None, "false", 0, 1]
NOT_A_COUNT: list[object] = [None, 0, -1, 1.5, "3", True]
NOT_A_TIME: list[object] = [None, -1, float("nan"), float("inf"), "3", True]

CENSUS = {"api_key": "k", "entity": "Users"}
AMPERITY = {"tenant": "acme", "token": "t", "index": "Users"}
CREDENTIALS = {"token_url": "https://a.example/t", "client_id": "c", "client_secret": "s", "tenant": "acme"}
ISSUER = {"key_id": "k", "issuer_token": "t", "tenant": "acme", "base_url": "https://a.example"}

CASES: list[tuple[Make, dict[str, Any], str, list[object]]] = [
    (CensusSource, CENSUS, "api_key", NOT_TEXT),
    (CensusSource, CENSUS, "entity", [None, "", " ", b"Users", ["Users"], True, -1]),
    (CensusSource, CENSUS, "id_column", NOT_OPTIONAL_TEXT),
    (CensusSource, CENSUS, "base_url", NOT_OPTIONAL_TEXT),
    (CensusSource, CENSUS, "region", [None, "", ["us"], "moon"]),
    (CensusSource, CENSUS, "transport", [None, "", "curl", 3]),
    (CensusSource, CENSUS, "allow_insecure_http", NOT_A_SWITCH),
    (CensusSource, CENSUS, "max_body_bytes", NOT_A_COUNT),
    (CensusSource, CENSUS, "batch", NOT_A_SWITCH),
    (AmperitySource, AMPERITY, "tenant", NOT_TEXT),
    (AmperitySource, AMPERITY, "token", NOT_TEXT),
    (AmperitySource, AMPERITY, "index", NOT_OPTIONAL_TEXT),
    (AmperitySource, AMPERITY, "base_url", NOT_OPTIONAL_TEXT),
    (AmperitySource, AMPERITY, "region", [None, "", ["aws"], "moon"]),
    (AmperitySource, AMPERITY, "api_version", NOT_TEXT),
    (AmperitySource, AMPERITY, "on_multiple", [None, "", "all"]),
    (ClientCredentials, CREDENTIALS, "token_url", NOT_TEXT),
    (ClientCredentials, CREDENTIALS, "client_id", NOT_TEXT),
    (ClientCredentials, CREDENTIALS, "client_secret", NOT_TEXT),
    (ClientCredentials, CREDENTIALS, "tenant", NOT_TEXT),
    (ClientCredentials, CREDENTIALS, "margin", NOT_A_TIME),
    (IssuerToken, ISSUER, "key_id", NOT_TEXT),
    (IssuerToken, ISSUER, "issuer_token", NOT_TEXT),
    (IssuerToken, ISSUER, "tenant", NOT_TEXT),
    (IssuerToken, ISSUER, "base_url", NOT_TEXT),
    (IssuerToken, ISSUER, "lifetime", [*NOT_A_TIME, 0]),
    (StaticToken, {}, "token", NOT_TEXT),
    (MemorySource, {}, "name", NOT_TEXT),
    (StoreSource, {"store": "s", "collection": "c"}, "collection", [None, "", True, b"c"]),
    (StoreSource, {"store": "s", "collection": "c"}, "store", ["", " "]),
    (TransportOptions, {}, "max_connections", NOT_A_COUNT),
    (TransportOptions, {}, "keepalive_seconds", NOT_A_TIME),
    (TransportOptions, {}, "environment", NOT_A_SWITCH),
    (TransportOptions, {}, "tls", [True, "ca.pem"]),
    (CachePolicy, {}, "throttle", NOT_A_TIME),
    (CachePolicy, {}, "respect_cache_control", NOT_A_SWITCH),
    (CachePolicy, {}, "max_entry_bytes", NOT_A_COUNT),
    (CachePolicy, {}, "storage", [{}, 3]),
    (CachePolicy, {}, "rng", [None, 0.5]),
    (SourcePolicy, {}, "breaker", [False, 3]),
    (SourcePolicy, {}, "retry", [False, 3]),
    (SourcePolicy, {}, "rate_limit", [False, 3]),
    (SourcePolicy, {}, "max_in_flight", NOT_A_COUNT),
    (SourcePolicy, {}, "close_timeout", [*NOT_A_TIME, 0]),
    (SourcePolicy, {}, "warm_up_timeout", NOT_A_TIME),
    (ProfileClient, {"source": MemorySource()}, "source", [None, "https://a.example"]),
    (ProfileClient, {"source": MemorySource()}, "ttl", [*NOT_A_TIME, 0]),
    (ProfileClient, {"source": MemorySource()}, "stale_ttl", NOT_A_TIME),
    (ProfileClient, {"source": MemorySource()}, "deadline", [*NOT_A_TIME, 0]),
    (ProfileClient, {"source": MemorySource()}, "max_entries", NOT_A_COUNT),
    (ProfileClient, {"source": MemorySource()}, "max_bytes", NOT_A_COUNT),
    (ProfileClient, {"source": MemorySource()}, "follow_changes", NOT_A_SWITCH),
    (ProfileClient, {"source": MemorySource()}, "hooks", [print, [None], ["hook"]]),
    (ProfileClient, {"source": MemorySource()}, "cache_policy", [3, {}]),
    (ProfileClient, {"source": MemorySource()}, "source_policy", [3, {}]),
]


@pytest.mark.parametrize(
    ("make", "others", "name", "values"), CASES, ids=lambda value: getattr(value, "__name__", None)
)
def test_A25_a_value_that_cannot_be_meant_is_refused(
    make: Make, others: dict[str, Any], name: str, values: list[object]
) -> None:
    """A25: `None` is refused, not converted to text; the message names the argument and quotes no secret."""
    for value in values:
        with pytest.raises(ConfigurationError) as raised:
            make(**{**others, name: value})
        assert name in str(raised.value) or make is AmperitySource, (value, str(raised.value))
        assert "secret'" not in str(raised.value)
