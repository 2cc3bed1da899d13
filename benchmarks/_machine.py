"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

__all__ = ["facts", "load", "versions"]

_LIBRARIES = (
    "profile-enrich", "starlette", "uvicorn", "h11", "httptools", "uvloop", "anyio", "httpx", "httpcore", "httpx2",
    "httpcore2", "aiohttp", "cachetools", "cachebox", "cashews", "aiocache", "async-lru", "cachetools-async",
    "duckdb", "pyroaring", "fastapi", "asyncpg", "redis", "datasette",
)  # fmt: skip


def facts() -> list[tuple[str, str]]:
    """The machine, line by line."""
    return [
        ("CPU", f"{_cpu()}, {os.cpu_count()} cores"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})"),
        ("OS", platform.platform()),
    ]


def versions() -> list[tuple[str, str]]:
    """The libraries, with their versions."""
    return [(name, _version(name)) for name in _LIBRARIES]


def load() -> str:
    """The load average of the last minute: what else the machine was doing."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
