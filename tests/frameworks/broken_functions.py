"""Identity and consent functions that hang, or raise `CancelledError` themselves."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["BROKEN"]


async def hangs(request: Any) -> Any:
    await asyncio.sleep(3600)


async def hangs_for_good(request: Any) -> Any:
    for _ in range(2):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.6)
            return True
    return True


async def cancels(request: Any) -> Any:
    raise asyncio.CancelledError


def cancels_at_once(request: Any) -> Any:
    raise asyncio.CancelledError


BROKEN = [hangs, hangs_for_good, cancels, cancels_at_once]
