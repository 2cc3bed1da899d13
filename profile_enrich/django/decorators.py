"""Decorator for views that require a profile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from django.http import HttpRequest, HttpResponse

from ..errors import ConfigurationError, ProfileRequired
from ..web.profile_dependencies import refusal
from .lookup import DjangoLookup, is_async, lookup_of

__all__ = ["profile_required"]

View = TypeVar("View", bound=Callable[..., Any])


def profile_required(view: View) -> View:
    """Reject requests without a profile, in synchronous and asynchronous views.

    The status is 401 if nobody is signed in, 403 without consent or for an excluded profile, 404 without a profile, 503
    if the source is unavailable.

    Args:
        view: a view function; for a class, use `django.utils.decorators.method_decorator`.

    Returns:
        The view, decorated.
    """
    if is_async(view):

        @functools.wraps(view)
        async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            lookup = _lookup(request)
            found = await lookup.aprofile()
            return await view(request, *args, **kwargs) if found else _refused(refusal(found))

        return cast(View, guarded)

    @functools.wraps(view)
    def guarded_here(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            _lookup(request).require()
        except ProfileRequired as error:
            return _refused(error)
        return view(request, *args, **kwargs)

    return cast(View, guarded_here)


def _lookup(request: HttpRequest) -> DjangoLookup:
    lookup = lookup_of(request)
    if lookup is None:
        raise ConfigurationError('profile_required needs "profile_enrich.django.DjangoProfileMiddleware" in MIDDLEWARE')
    return lookup


def _refused(error: ProfileRequired) -> HttpResponse:
    return HttpResponse(error.detail, status=error.status_code, content_type="text/plain")
