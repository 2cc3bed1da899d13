"""Settings of the console from environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Secret

from profile_enrich import AmperitySource, CensusSource, ProfileSource

HERE = Path(__file__).resolve().parent
ADDRESSES = {"amperity": "http://127.0.0.1:8787/api", "census": "http://127.0.0.1:8787/api/v1"}
"""The addresses of `profile-enrich serve` in each of its two dialects."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the console.

    Args:
        api_key: for the Profile API (`CONSOLE_API_KEY`). It stays in this process. A source of
            your own needs none.
        api: `"amperity"`, which can also search by attributes, or `"census"`, which knows ids only (`CONSOLE_API`).
        api_url: where the Profile API is (`CONSOLE_API_URL`); the embedded one when not given.
        collection: the index (Amperity) or entity (Census) (`CONSOLE_COLLECTION`).
        tenant: of Amperity; the workspace of an embedded server (`CONSOLE_TENANT`).
        id_column: of Census: an answer with another id is refused (`CONSOLE_ID_COLUMN`).
        search_by: attributes that the index can be filtered by (`CONSOLE_SEARCH_BY`, separated by commas).
        roles: the file that says what each role sees (`CONSOLE_ROLES`).
        data: the directory of users, sessions and the audit log (`CONSOLE_DATA`).
        secure_cookie: send the session over https only (`CONSOLE_SECURE_COOKIE=1`). Say so wherever there is https.
        ttl: seconds for which a profile is fresh in the console's cache (`CONSOLE_TTL`).
        keep_days: days for which the audit log is kept (`CONSOLE_KEEP_DAYS`).
        trusted_proxies: addresses of reverse proxies whose `X-Forwarded-For` is believed, separated by commas
            (`CONSOLE_TRUSTED_PROXIES`); by default none, and the limits of sign-ins count the connection's address.
        example_id: an id that the search field shows as an example (`CONSOLE_EXAMPLE_ID`). Never a real customer's.
        tickets: show the mock ticket system at `/tickets` (`CONSOLE_TICKETS=1`). Only for trying the extension.
    """

    api_key: Secret = field(default_factory=lambda: Secret(""))
    api: str = "amperity"
    api_url: str = ADDRESSES["amperity"]
    collection: str = "Customers"
    tenant: str = "default"
    id_column: str | None = None
    search_by: tuple[str, ...] = ()
    roles: Path = HERE / "roles.toml"
    data: Path = Path(".console")
    secure_cookie: bool = False
    ttl: float = 60.0
    keep_days: float = 365.0
    tickets: bool = False
    example_id: str = ""
    trusted_proxies: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises:
            ValueError: a variable is missing or makes no sense; the message names it.
        """
        if not environment.get("CONSOLE_API_KEY"):
            raise ValueError(
                "CONSOLE_API_KEY is not set; `python -m examples.operator_console demo` starts all that is needed"
            )
        api = environment.get("CONSOLE_API") or "amperity"
        if api not in ADDRESSES:
            raise ValueError("CONSOLE_API must be amperity or census")
        search_by = tuple(filter(None, (name.strip() for name in environment.get("CONSOLE_SEARCH_BY", "").split(","))))
        if api == "census" and search_by:
            raise ValueError("CONSOLE_SEARCH_BY: Census finds records by their id only; leave it out, or use amperity")
        return cls(
            api_key=Secret(environment["CONSOLE_API_KEY"]),
            api=api,
            api_url=environment.get("CONSOLE_API_URL") or ADDRESSES[api],
            collection=environment.get("CONSOLE_COLLECTION") or "Customers",
            tenant=environment.get("CONSOLE_TENANT") or "default",
            id_column=environment.get("CONSOLE_ID_COLUMN") or None,
            search_by=search_by,
            roles=Path(environment.get("CONSOLE_ROLES") or HERE / "roles.toml"),
            data=data_directory(environment),
            secure_cookie=environment.get("CONSOLE_SECURE_COOKIE") == "1",
            ttl=_number(environment, "CONSOLE_TTL", 60.0),
            keep_days=_number(environment, "CONSOLE_KEEP_DAYS", 365.0),
            example_id=environment.get("CONSOLE_EXAMPLE_ID", "")[:64],
            tickets=environment.get("CONSOLE_TICKETS") == "1",
            trusted_proxies=environment.get("CONSOLE_TRUSTED_PROXIES", ""),
        )

    def source(self) -> ProfileSource:
        """Return the source of profiles."""
        if self.api == "census":
            return CensusSource(self.api_key, entity=self.collection, id_column=self.id_column, base_url=self.api_url)
        return AmperitySource(index=self.collection, tenant=self.tenant, token=self.api_key, base_url=self.api_url)


def data_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The path of users, sessions and the audit log."""
    return Path(environment.get("CONSOLE_DATA") or ".console")


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a number above 0, e.g. {default:g}")
    return value
