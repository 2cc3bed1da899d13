"""Django's page cache (`UpdateCacheMiddleware`, `cache_page`) must not keep a personal page."""

from __future__ import annotations

import functools
from typing import Any, cast

from django.http import HttpRequest

__all__ = ["keep_out_of_page_cache"]


def keep_out_of_page_cache(request: HttpRequest) -> None:
    """Have Django's page cache leave the response to this request alone, wherever in the chain it stands.

    The cache looks at the headers where it stands itself: `cache_page` inside of all middleware, before this package's
    headers are set. What it also looks at is `request._cache_update_cache`, which its request phase sets. That may come
    after the profile was read, so from now on the attribute stays false.
    """
    kind = type(request)
    if not issubclass(kind, _Uncached):
        request.__class__ = _uncached(cast(Any, kind))


class _Uncached:
    """A request that is never stored, whatever is set."""

    @property
    def _cache_update_cache(self) -> bool:
        return False

    @_cache_update_cache.setter
    def _cache_update_cache(self, value: object) -> None:
        pass


@functools.cache
def _uncached(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_Uncached, kind), {"__module__": kind.__module__})
