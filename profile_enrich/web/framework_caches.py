"""Detection of caches inside an application, which store a response before the middleware has set its headers."""

from __future__ import annotations

import linecache
import logging
import sys
from collections.abc import Iterable
from types import FrameType

from starlette.types import Scope

from .._utils.log_once import LogOnce
from ..profile import Profile

__all__ = ["inner_cache", "memoizer", "warn_inner_cache"]

logger = logging.getLogger("profile_enrich")

_LITESTAR = (
    "Litestar's response cache. Leave `cache=` out of this handler, or use profile_enrich.litestar.ProfilePlugin"
)
_DJANGO = (
    "Django's response cache. Use profile_enrich.django.DjangoProfileMiddleware in MIDDLEWARE, which sets the headers "
    "where that cache looks"
)
_PARAMETER = (
    "Read the profile before, and pass it to the function as a parameter, so that it is part of the cache key, or do "
    "not use the cache"
)
_KEYS = (Profile.__repr__.__code__, Profile.__reduce__.__code__)
"""The functions with which caches derive a key from a profile: from its text, or from its pickle."""

_MEMOIZERS = {
    "aiocache.decorators": "aiocache",
    "beaker.cache": "Beaker",
    "cachetools._cached": "cachetools",
    "cachetools._decorator": "cachetools",
    "cashews.decorators.cache": "cashews",
    "diskcache.core": "diskcache",
    "dogpile.cache.region": "dogpile.cache",
    "fastapi_cache.decorator": "fastapi-cache",
    "joblib.memory": "joblib",
}
"""The names of libraries by the module, or package, whose functions call the cached function."""


def inner_cache(scope: Scope, headers: Iterable[tuple[bytes, bytes]], *, declared: bool) -> str | None:
    """Return the cache that may have stored a response, and the remedy; `None` if there is none.

    Args:
        scope: the scope of the request, as modified by the framework.
        headers: the headers of the response, from the framework.
        declared: whether the handler takes the profile as a parameter.
    """
    handler = scope.get("route_handler")
    if handler is not None and getattr(handler, "cache", False) and type(handler).__module__.startswith("litestar."):
        keep = scope["litestar_app"].response_cache_config.cache_response_filter
        return None if keep.__module__ == "profile_enrich.litestar" else _LITESTAR  # the plugin's filter keeps it out
    if "django.middleware.cache" in sys.modules and _django_keeps(headers):
        return _DJANGO
    if declared or "fastapi_cache.decorator" not in sys.modules:
        return None
    kept = any(name.lower() == b"x-fastapi-cache" for name, _ in headers)
    return f"fastapi-cache. {_PARAMETER}" if kept else None


def memoizer() -> str | None:
    """Return the memoizing cache that called the running function, and the remedy; `None` if there is none.

    A profile first read inside such a function was neither passed as a parameter nor read by a key function. Caches
    that call the function in a separate task (async-lru), or without a frame (`functools.lru_cache`), are not found.
    """
    if sys.modules.keys().isdisjoint(_MEMOIZERS):  # quick, because each page that reads a profile asks
        return None
    loaded = tuple(name for name in _MEMOIZERS if name in sys.modules)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _KEYS:
            return None  # the profile is part of the cache key
        module: str = frame.f_globals.get("__name__", "")
        if module.startswith(loaded):
            if "key" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
                return None  # likewise: the cache calls a key function, as in `k = key(*args, **kwargs)`
            return next(f"{cache}. {_PARAMETER}" for name, cache in _MEMOIZERS.items() if module.startswith(name))
        frame = frame.f_back
    return None


def warn_inner_cache(remedy: str, *, once: LogOnce, endpoint: str) -> None:
    """Log once that an inner cache stores a result derived from the profile.

    Args:
        remedy: which cache, and what to do.
        once: what was logged already.
        endpoint: the name of the handler.
    """
    if once.first("inner cache", remedy):
        logger.warning(
            "%s read the profile inside a cache that may give one person what was made for another: it is %s",
            endpoint,
            remedy,
        )


def _django_keeps(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether Django's cache stores a response: it adds `Expires` and `max-age`, and skips private ones."""
    fields = {name.lower(): value.lower() for name, value in headers}
    control = fields.get(b"cache-control", b"")
    return b"expires" in fields and b"max-age=" in control and b"max-age=0" not in control and b"private" not in control
