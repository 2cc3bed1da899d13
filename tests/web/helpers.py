"""Helpers shared by the middleware tests."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from profile_enrich import from_header, get_profile

WHO = from_header("x-user", trusted=True)


def ask(app: ASGIApp, path: str = "/", user: str | None = "u1", *, raises: bool = True, **headers: str) -> Any:
    """Return the application's response to a visitor."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if user is not None:
        sent["x-user"] = user
    return TestClient(app, raise_server_exceptions=raises).get(path, headers=sent)


def view(profile: Any) -> dict[str, Any]:
    return {"id": profile.get("id"), "reason": profile.reason}


async def read(request: Request) -> Response:
    return JSONResponse(view(await get_profile(request)))
