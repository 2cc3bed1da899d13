"""A shop behind an HTTP cache: a private page, a public page with a private part, and a page for each audience.

    pip install "profile-enrich[session,server]"
    uvicorn examples.caching.app:app --port 8001
    varnishd -a 127.0.0.1:8080 -f $PWD/examples/caching/shop.vcl -n /tmp/shop -F     (or nginx -c with shop.nginx.conf)

Then open http://127.0.0.1:8080/sign-in/u1 and the three pages.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from profile_enrich import MemorySource, ProfileClient, ProfileMiddleware, from_session, get_profile
from profile_enrich.personalize import Audience, choose

PEOPLE = {f"u{number}": {"first_name": f"Name{number}", "tier": ["gold", "basic"][number % 2]} for number in range(40)}

profiles = ProfileClient(MemorySource(PEOPLE))
rendered: Counter[str] = Counter()
"""How often each page was made, for `/rendered`."""

VIP = Audience("vip", tier="gold")
BANNERS = {"vip": "Your lounge is open", "everybody": "Welcome"}


async def private(request: Request) -> Response:
    """1. A private page: reading the profile makes it one, and shared caches pass it through."""
    rendered["private"] += 1
    return HTMLResponse(f"<h1>Hello {(await get_profile(request)).get('first_name', 'there')}</h1>")


async def public(request: Request) -> Response:
    """2. A public page with a private part: everybody gets the same bytes, and the part comes by ESI or by script."""
    rendered["public"] += 1
    edge = "esi" in request.headers.get("surrogate-capability", "").lower()
    part = '<esi:include src="/greeting"/>' if edge else '<p id="greeting"></p><script src="/greeting.js"></script>'
    headers = {"cache-control": "public, max-age=60", "vary": "Surrogate-Capability"}
    if edge:
        headers["surrogate-control"] = 'content="ESI/1.0"'
    return HTMLResponse(f"<h1>The shop</h1>{part}", headers=headers)


async def greeting(request: Request) -> Response:
    """The private part of the public page."""
    rendered["greeting"] += 1
    return HTMLResponse(f"<p>Hello {(await get_profile(request)).get('first_name', 'there')}</p>")


async def greeting_script(request: Request) -> Response:
    """Puts the private part in, where no cache does."""
    script = 'fetch("/greeting").then(r => r.text()).then(t => document.getElementById("greeting").outerHTML = t)'
    return Response(script, media_type="text/javascript", headers={"cache-control": "public, max-age=3600"})


async def banner(request: Request) -> Response:
    """3. A page for each audience: the cache turns a cookie into one of few header values, and keeps one copy each.

    It must not read the profile, which is of one person; the audience was decided at sign-in.
    """
    rendered["banner"] += 1
    audience = request.headers.get("x-audience", "everybody")
    headers = {"cache-control": "public, max-age=60", "vary": "X-Audience"}
    return HTMLResponse(f"<h1>{BANNERS.get(audience, BANNERS['everybody'])}</h1>", headers=headers)


async def sign_in(request: Request) -> Response:
    """A stand-in for your own. The audience goes into a cookie of its own, which says nothing else."""
    user_id = request.path_params["user_id"]
    request.session["user_id"] = user_id
    audience = choose(await profiles.lookup(user_id), {VIP: "vip"}, default="everybody").value
    response = RedirectResponse("/", status_code=303)
    response.set_cookie("audience", audience, httponly=True, samesite="lax")
    return response


async def counts(request: Request) -> Response:
    """How often each page was made."""
    return JSONResponse(dict(rendered), headers={"cache-control": "no-store"})


app = Starlette(
    routes=[
        Route("/", private),
        Route("/shop", public),
        Route("/greeting", greeting),
        Route("/greeting.js", greeting_script),
        Route("/banner", banner),
        Route("/sign-in/{user_id}", sign_in),
        Route("/rendered", counts),
    ],
    lifespan=profiles.lifespan,
    middleware=[
        Middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET", secrets.token_hex())),
        # lazy: a page that does not read the profile costs no lookup
        Middleware(ProfileMiddleware, client=profiles, identify=from_session("user_id"), attach="lazy"),
    ],
)
