"""The enrichment that people write by hand: `BaseHTTPMiddleware`, a TTLCache, httpx, fail open."""

from __future__ import annotations

from typing import Any

import httpx
from cachetools import TTLCache
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

__all__ = ["HandWritten"]


class HandWritten(BaseHTTPMiddleware):
    """Puts a dict on `request.state.profile`.

    Args:
        app: the application.
        url: what the user's id is appended to.
        headers: of each call.
        ttl: seconds for which a profile is kept.
        timeout: of httpx, in seconds; 5 is its default.
    """

    def __init__(
        self, app: ASGIApp, url: str, headers: dict[str, str] | None = None, ttl: float = 60, timeout: float = 5
    ) -> None:
        super().__init__(app)
        self.url = url
        self.cache: TTLCache[str, dict[str, Any]] = TTLCache(50_000, ttl)
        self.http = httpx.AsyncClient(headers=headers, timeout=timeout)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        user = request.session.get("user_id") if "session" in request.scope else request.headers.get("x-user")
        request.state.profile = await self.profile(user) if user else {}
        return await call_next(request)

    async def profile(self, user: str) -> dict[str, Any]:
        found = self.cache.get(user)
        if found is None:
            try:
                response = await self.http.get(self.url + user)
                response.raise_for_status()
                found = self.cache[user] = response.json()["data"]
            except (httpx.HTTPError, ValueError, KeyError):
                return {}
        return found
