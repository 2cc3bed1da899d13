"""The pages of a small Django shop, synchronous and asynchronous, some of them behind Django's own page cache."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from django.contrib.auth import alogin, alogout, login, logout
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.views.decorators.cache import cache_page

from profile_enrich.django import profile_required, refresh_profile

rendered: list[str] = []
"""The paths whose view ran: the page cache did not answer them."""


def hello(profile: Any) -> str:
    return f"Hello {profile.get('id', 'nobody')}"


def read(request: Any) -> HttpResponse:
    rendered.append(request.path)
    return HttpResponse(hello(request.profile))


async def aread(request: Any) -> HttpResponse:
    rendered.append(request.path)
    return HttpResponse(hello(await request.aprofile()))


def public(request: Any) -> HttpResponse:
    """A faulty page: it allows shared caches to store it."""
    response = HttpResponse(hello(request.profile))
    response["Cache-Control"] = "public, s-maxage=600, max-age=60"
    response["CDN-Cache-Control"] = "max-age=600"
    response["Vary"] = "Accept-Language"
    return response


def plain(request: Any) -> HttpResponse:
    rendered.append(request.path)
    return HttpResponse("the same for all")


async def aplain(request: Any) -> HttpResponse:
    rendered.append(request.path)
    return HttpResponse("the same for all")


def early(request: Any) -> HttpResponse:
    """A page that shows what an outer middleware read."""
    return HttpResponse(f"Hello {request.early}")


def template(request: Any) -> TemplateResponse:
    return TemplateResponse(request, "hello.html", {})


def fragment(request: Any) -> TemplateResponse:
    return TemplateResponse(request, "fragment.html", {})


def missing(request: Any) -> TemplateResponse:
    return TemplateResponse(request, "missing.html", {})


async def forgot(request: Any) -> HttpResponse:
    return HttpResponse(hello(request.profile))


def stream(request: Any) -> StreamingHttpResponse:
    profile = request.profile
    profile.get("id")

    def parts() -> Iterator[str]:
        yield "data: "
        yield hello(profile)

    return StreamingHttpResponse(parts())


async def astream(request: Any) -> StreamingHttpResponse:
    profile = await request.aprofile()

    async def parts() -> AsyncIterator[str]:
        yield "data: "
        yield hello(profile)

    return StreamingHttpResponse(parts())


def late(request: Any) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        yield hello(request.profile)

    return StreamingHttpResponse(parts())


def encode(request: Any) -> HttpResponse:
    return JsonResponse({"profile": request.profile})


async def aencode(request: Any) -> HttpResponse:
    return JsonResponse({"profile": await request.aprofile()})


def encode_itself(request: Any) -> HttpResponse:
    return JsonResponse(request.profile)


def encode_in_session(request: Any) -> HttpResponse:
    request.session["profile"] = request.profile
    return HttpResponse()


def boom(request: Any) -> HttpResponse:
    hello(request.profile)
    raise RuntimeError("boom")


@profile_required
def members(request: Any) -> HttpResponse:
    return HttpResponse("members")


@profile_required
async def amembers(request: Any) -> HttpResponse:
    return HttpResponse("members")


def switch(request: Any) -> HttpResponse:
    """Sign out, and in as another user; the profile is read before, between and after."""
    names = [request.profile.get("id", "nobody")]
    logout(request)
    names.append(request.profile.get("id", "nobody"))
    login(request, User.objects.get(id=2), backend="django.contrib.auth.backends.ModelBackend")
    names.append(request.profile.get("id", "nobody"))
    return HttpResponse(" ".join(names))


def switch_by_session(request: Any) -> HttpResponse:
    held, before = request.profile, request.profile.get("id")
    request.session["customer"] = "2"
    refresh_profile(request)
    return HttpResponse(f"{before} {held.get('id')}")


async def aswitch_by_session(request: Any) -> HttpResponse:
    held = await request.aprofile()
    before = held.get("id")
    await request.session.aset("customer", "2")
    refresh_profile(request)
    return HttpResponse(f"{before} {(await request.aprofile()).get('id')}")


async def aswitch(request: Any) -> HttpResponse:
    names = [(await request.aprofile()).get("id", "nobody")]
    await alogout(request)
    names.append((await request.aprofile()).get("id", "nobody"))
    user = await User.objects.aget(id=2)
    await alogin(request, user, backend="django.contrib.auth.backends.ModelBackend")
    names.append((await request.aprofile()).get("id", "nobody"))
    return HttpResponse(" ".join(names))


def details(request: Any) -> HttpResponse:
    return HttpResponse(json.dumps({"reason": request.profile.reason, "status": request.profile.status}))


def error_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"Sorry {getattr(request, 'profile', {}).get('id', 'nobody')}", status=500)


handler500 = error_page

PAGES: dict[str, Callable[..., Any]] = {
    "read": read,
    "aread": aread,
    "plain": plain,
    "aplain": aplain,
    "early": early,
    "template": template,
}

urlpatterns = [
    *(path(name, page) for name, page in PAGES.items()),
    *(path(f"cached/{name}", cache_page(60)(page)) for name, page in PAGES.items()),
    path("public", public),
    path("fragment", fragment),
    path("missing", missing),
    path("forgot", forgot),
    path("stream", stream),
    path("astream", astream),
    path("late", late),
    path("boom", boom),
    path("encode", encode),
    path("aencode", aencode),
    path("encode-itself", encode_itself),
    path("encode-in-session", encode_in_session),
    path("members", members),
    path("amembers", amembers),
    path("switch", switch),
    path("switch-by-session", switch_by_session),
    path("aswitch-by-session", aswitch_by_session),
    path("aswitch", aswitch),
    path("details", details),
    path("static/details", details),
]


class ReadsEarly:
    """A project's middleware that reads the profile before the view and the page cache."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        if request.path.endswith("early"):
            request.early = request.profile.get("id", "nobody")
        return self.get_response(request)


class ReadsAfter:
    """A middleware outside the profile's that reads the profile during the response."""

    seen: list[object] = []  # noqa: RUF012

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        self.seen.append(request.profile.get("id", "sealed"))
        return response
