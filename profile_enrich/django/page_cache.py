"""Guard that keeps personal pages out of Django's page cache (`UpdateCacheMiddleware`, `cache_page`)."""

from __future__ import annotations

import functools
from typing import Any, cast

from django.http import HttpRequest

__all__ = ["keep_out_of_page_cache"]


def keep_out_of_page_cache(request: HttpRequest) -> None:
    """Prevent Django's page cache from storing the response to this request, at any position in the chain.

    The cache checks the headers at its own position: `cache_page` inside of all middleware, before this package sets
    its headers. It also checks `request._cache_update_cache`, which its request phase sets, possibly after the profile
    was read. So from now on the attribute stays false.
    """
    kind = type(request)
    if not issubclass(kind, _Uncached):
        request.__class__ = _uncached(cast(Any, kind))


class _Uncached:
    """A request whose response is never stored."""

    @property
    def _cache_update_cache(self) -> bool:
        return False

    @_cache_update_cache.setter
    def _cache_update_cache(self, value: object) -> None:
        pass


@functools.cache
def _uncached(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_Uncached, kind), {"__module__": kind.__module__})
