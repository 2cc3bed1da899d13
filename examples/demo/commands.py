"""The two processes of the demo: the embedded Profile API and the shop."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping

from .process import HOST, ROOT, Process

HOUSEHOLDS = ROOT / "examples" / "storefront" / "data" / "households.jsonl"


def profile_api(port: int, key: str) -> Process:
    """Return the embedded Profile API over the example's households."""
    command = [
        sys.executable, "-m", "profile_enrich", "serve", "--data", str(HOUSEHOLDS), "--entity", "Households",
        "--id", "household_id", "--host", HOST, "--port", str(port),
    ]  # fmt: skip
    return Process("The Profile API", command, {"PROFILE_ENRICH_API_KEY": key}, f"http://{HOST}:{port}/healthz")


def storefront(port: int, api_port: int, key: str, environment: Mapping[str, str] | None = None) -> Process:
    """Return the shop, which looks profiles up at the Profile API."""
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "examples.storefront.app:create_app", "--host", HOST,
        "--port", str(port), "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    variables = {
        "STOREFRONT_API_URL": f"http://{HOST}:{api_port}/api/v1",
        "PROFILE_ENRICH_API_KEY": key,
        "STOREFRONT_SECRET": secrets.token_urlsafe(32),
        **(environment or {}),
    }
    return Process("The shop", command, variables, f"http://{HOST}:{port}/ready")
