"""Settings of the shop from environment variables."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Secret


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the shop.

    Args:
        api_key: for the Profile API (`PROFILE_ENRICH_API_KEY`).
        api_url: the address of the Profile API (`STOREFRONT_API_URL`).
        secret: signs the session cookie (`STOREFRONT_SECRET`). Default: a new one at each start.
        ttl: seconds for which a profile is fresh (`STOREFRONT_TTL`).
        stale_ttl: seconds for which a stale profile is served during a refresh (`STOREFRONT_STALE_TTL`).
        negative_ttl: seconds for which an unknown household is cached (`STOREFRONT_NEGATIVE_TTL`).
        budget: the longest wait of a page for a profile, in seconds (`STOREFRONT_BUDGET`).
        follow_changes: whether the Profile API tells what changes (`STOREFRONT_FOLLOW_CHANGES=1`), so that `ttl` can be
            an hour and a change still shows within a second.
        control: the socket of the demo's launcher (`STOREFRONT_CONTROL`). With it, each page has a button that
            stops and starts the Profile API.
    """

    api_key: Secret
    api_url: str = "http://127.0.0.1:8787/api/v1"
    secret: Secret = field(default_factory=lambda: Secret(secrets.token_urlsafe(32)))
    ttl: float = 60.0
    stale_ttl: float = 600.0
    negative_ttl: float = 15.0
    budget: float = 0.05
    follow_changes: bool = False
    control: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises:
            ValueError: a variable is missing or not a number; the message names it.
        """
        if not environment.get("PROFILE_ENRICH_API_KEY"):
            raise ValueError("PROFILE_ENRICH_API_KEY is not set; `make demo` starts the shop with all that it needs")
        return cls(
            api_key=Secret(environment["PROFILE_ENRICH_API_KEY"]),
            api_url=environment.get("STOREFRONT_API_URL", "http://127.0.0.1:8787/api/v1"),
            secret=Secret(environment.get("STOREFRONT_SECRET") or secrets.token_urlsafe(32)),
            ttl=_seconds(environment, "STOREFRONT_TTL", 60.0),
            stale_ttl=_seconds(environment, "STOREFRONT_STALE_TTL", 600.0),
            negative_ttl=_seconds(environment, "STOREFRONT_NEGATIVE_TTL", 15.0),
            budget=_seconds(environment, "STOREFRONT_BUDGET", 0.05),
            follow_changes=environment.get("STOREFRONT_FOLLOW_CHANGES", "") not in ("", "0"),
            control=Path(environment["STOREFRONT_CONTROL"]) if environment.get("STOREFRONT_CONTROL") else None,
        )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        pass
    raise ValueError(f"{name} must be a number of seconds, e.g. {default:g}")
