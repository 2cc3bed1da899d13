"""The libraries that people cache with, each set up as its own documentation shows, with a cheap key function.

A peer is a function that answers a key from its cache, or else by awaiting `load`. Packages that are not installed are
left out, and named in a note.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any

from cachetools import TTLCache

__all__ = ["SIZE", "TTL", "Build", "Get", "async_peers", "by_hand", "missing", "note_on_missing"]

Load = Callable[[str], Awaitable[dict[str, Any]]]
Get = Callable[[str], Awaitable[Any]]
Build = Callable[[Load], Get]

TTL = 60
SIZE = 200_000


def by_hand(load: Load) -> Get:
    """What people write: look, await, store."""
    cache: TTLCache[str, Any] = TTLCache(SIZE, TTL)

    async def get(key: str) -> Any:
        found = cache.get(key)
        if found is None:
            found = cache[key] = await load(key)
        return found

    return get


def _async_lru(load: Load) -> Get:
    get: Get = importlib.import_module("async_lru").alru_cache(maxsize=SIZE, ttl=TTL)(load)
    return get


def _cachetools_async(load: Load) -> Get:
    get: Get = importlib.import_module("cachetools_async").cached(TTLCache(SIZE, TTL))(load)
    return get


def _cachebox(load: Load) -> Get:
    cachebox = importlib.import_module("cachebox")
    get: Get = cachebox.cached(cachebox.TTLCache(SIZE, TTL))(load)
    return get


def _cashews(lock: bool) -> Build:
    def build(load: Load) -> Get:
        cache = importlib.import_module("cashews").Cache()
        cache.setup("mem://", size=SIZE)
        get: Get = cache(ttl=TTL, key="{key}", lock=lock)(load)
        return get

    return build


def _aiocache(decorator: str) -> Build:
    def build(load: Load) -> Get:
        cached = getattr(importlib.import_module("aiocache"), decorator)
        get: Get = cached(ttl=TTL, key_builder=lambda function, key: key)(load)
        return get

    return build


_PEERS: dict[str, tuple[str, Build]] = {
    "async-lru alru_cache": ("async_lru", _async_lru),
    "cachetools-async cached": ("cachetools_async", _cachetools_async),
    "cachebox cached": ("cachebox", _cachebox),
    "cashews cache": ("cashews", _cashews(lock=False)),
    "cashews cache(lock=True)": ("cashews", _cashews(lock=True)),
    "aiocache cached": ("aiocache", _aiocache("cached")),
    "aiocache cached_stampede": ("aiocache", _aiocache("cached_stampede")),
}


def async_peers() -> dict[str, Build]:
    """How to make each installed peer, with an empty cache of its own. Call them on the running loop."""
    absent = missing()
    return {name: build for name, (module, build) in _PEERS.items() if module not in absent}


def missing() -> set[str]:
    """Modules of peers that are not installed."""
    return {module for module, _ in _PEERS.values() if importlib.util.find_spec(module) is None}


def note_on_missing() -> list[str]:
    """What to say about them."""
    absent = sorted(missing())
    return [f"Not installed and left out: {', '.join(absent)}."] if absent else []
