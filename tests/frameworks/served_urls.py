"""Django's one page in the served application."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import path


def home(request: Any) -> HttpResponse:
    from tests.frameworks.served_wsgi import about

    return HttpResponse(about(request.profile))


async def ahome(request: Any) -> HttpResponse:
    from tests.frameworks.served_wsgi import about

    return HttpResponse(about(await request.aprofile()))


urlpatterns = [path("", home), path("async", ahome)]
