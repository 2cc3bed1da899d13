"""Stop and start the Profile API through the launcher of the demo."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Literal

STATUS_SECONDS = 0.5
"""How long a page waits for the launcher."""
START_SECONDS = 60.0
"""How long starting the Profile API may take."""


async def ask_launcher(path: Path, request: Literal["status", "start", "stop"]) -> bool | None:
    """Send a request to the launcher and return whether the Profile API runs.

    Args:
        path: the launcher's socket.
        request: what it shall do.

    Returns:
        `None` when the launcher does not answer in time.
    """
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(STATUS_SECONDS if request == "status" else START_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(request.encode() + b"\n")
                return await reader.readline() == b"running\n"
            finally:
                writer.close()
    return None
