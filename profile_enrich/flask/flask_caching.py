"""Guard that keeps personal responses out of Flask-Caching.

`@cache.cached` stores the result of a view under the path, before headers are set. So in a request that read the
profile, nothing is stored for `@cache.cached` and `{% cache %}`, nor for a `@cache.memoize` function that read the
profile. `cache.set()` calls of the application are not affected.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from types import FrameType
from typing import Any, Literal, cast

from flask import Flask

from .lookup import FlaskLookup, current_lookup

__all__ = ["guard_caches"]

logger = logging.getLogger("profile_enrich")

_lock = threading.Lock()

Caller = Literal["page", "memoize", "application"]


def guard_caches(app: Flask, attribute: str) -> None:
    """Guard the Flask-Caching stores of an application.

    Args:
        app: the application.
        attribute: the `attribute` of the extension.
    """
    caches = app.extensions.get("cache")
    if not isinstance(caches, dict):
        return
    for store in cast("dict[object, Any]", caches).values():
        guarded: set[str] | None = getattr(store, "_profile_enrich", None)
        if guarded is None or attribute not in guarded:
            with _lock:
                _guard(store, attribute)


def _guard(store: Any, attribute: str) -> None:
    guarded = cast("set[str]", vars(store).setdefault("_profile_enrich", set()))
    if attribute in guarded:
        return
    store_get, store_set = store.get, store.set

    @functools.wraps(store_get)
    def get(key: str, *args: Any, **kwargs: Any) -> Any:
        value = store_get(key, *args, **kwargs)
        if value is None:
            lookup = current_lookup(attribute)
            if lookup is not None:
                lookup.reads_at_miss[key] = lookup.reads
        return value

    @functools.wraps(store_set)
    def set_(key: str, *args: Any, **kwargs: Any) -> Any:
        lookup = current_lookup(attribute)
        if lookup is not None and lookup.read and _is_personal(lookup, key):
            _warn(lookup)
            return False
        return store_set(key, *args, **kwargs)

    store.get, store.set = get, set_
    guarded.add(attribute)


def _is_personal(lookup: FlaskLookup, key: str) -> bool:
    caller = _caller()
    if caller == "memoize":
        return lookup.reads > lookup.reads_at_miss.get(key, -1)
    return caller == "page"


def _caller() -> Caller:
    """Return the Flask-Caching function that stores a value: the outermost one on the stack."""
    frame: FrameType | None = sys._getframe(3)
    name = ""
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("flask_caching"):
        name = frame.f_code.co_qualname
        frame = frame.f_back
    if name.startswith("Cache.memoize."):
        return "memoize"
    return "page" if name.startswith(("Cache.cached.", "CacheExtension.")) else "application"


def _warn(lookup: FlaskLookup) -> None:
    if lookup.config.once.first("flask-caching", lookup.endpoint()):
        logger.warning(
            "Flask-Caching was to keep what %s made for one person; it was not kept. Cache what is the same for "
            "several people, with @cache.memoize and what it depends on as arguments",
            lookup.endpoint(),
        )
