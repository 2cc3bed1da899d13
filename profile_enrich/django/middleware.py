"""Django middleware: attach the signed-in person's profile to each request."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ..profile import Reason
from ..web.encoding_hint import explain_encoding
from .lookup import DjangoLookup, is_async, lookup_of
from .settings import load_config

__all__ = ["DjangoProfileMiddleware", "explain_current"]


class DjangoProfileMiddleware:
    """Attach the profile to each request, as `request.profile` and `await request.aprofile()`.

    It is configured by the `PROFILE_ENRICH` setting. The lookup runs when the profile is first read. A page that reads
    it gets `Vary` and `Cache-Control: private`, and Django's page cache does not store it.

    Args:
        get_response: the next middleware, or the view.

    Raises:
        ImproperlyConfigured: the setting is invalid; `manage.py check` reports it, too.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._config = load_config()
        self._is_async = is_async(get_response)
        if self._is_async:
            markcoroutinefunction(cast(Any, self))

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        if lookup_of(request) is not None:  # if installed twice, the outer one has made the lookup
            return cast("HttpResponseBase | Awaitable[HttpResponseBase]", self.get_response(request))
        lookup = self._begin(request)
        if self._is_async:
            return self._serve_async(lookup, request)
        try:
            response = cast(HttpResponseBase, self.get_response(request))
        except BaseException:
            lookup.end()
            raise
        return self._finish(lookup, response)

    async def _serve_async(self, lookup: DjangoLookup, request: HttpRequest) -> HttpResponseBase:
        try:
            response = cast(HttpResponseBase, await self.get_response(request))
        except BaseException:
            lookup.end()
            raise
        return self._finish(lookup, response)

    def _begin(self, request: HttpRequest) -> DjangoLookup:
        lookup = DjangoLookup(self._config, request)
        if self._config.exclude and self._config.excludes(request.path_info):
            lookup.skip(Reason.NOT_LOOKED_UP)
        return lookup

    @staticmethod
    def _finish(lookup: DjangoLookup, response: HttpResponseBase) -> HttpResponseBase:
        headers = lookup.personal_headers(response.items())
        if headers is not None:
            kept = {name.lower(): value for name, value in headers}
            for name in [name for name, _ in response.items() if name.lower() not in kept]:
                del response[name]
            for name, value in kept.items():
                if response.get(name) != value:
                    response[name.title()] = value
        if response.streaming:
            # The body is generated after all middleware, so the request has not ended here.
            cast(Any, response)._resource_closers.append(lookup.end)
        else:
            lookup.end()
        return response


def explain_current(**_: Any) -> None:
    """Add a hint to an exception about a profile that cannot be encoded as JSON, in a view or in another middleware."""
    error = sys.exception()
    if error is not None:
        explain_encoding(error)
