"""A small Flask shop, with Flask-Caching where it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, g, jsonify, render_template_string, session

from profile_enrich import ProfileClient, from_cookie
from profile_enrich.flask import ProfileEnrich, current_profile, profile_required

made: list[str] = []
"""What ran: Flask-Caching did not answer it."""


extensions: list[ProfileEnrich] = []
"""All that were made, to be closed."""


def create(client: ProfileClient, cache: Any = None, *, cache_first: bool = False, **options: Any) -> Flask:
    """The application. `cache` is a `flask_caching.Cache` that the views are decorated with before it is set up."""
    app = Flask(__name__)
    app.secret_key = "secret"
    if cache_first:
        cache.init_app(app)
    extension = ProfileEnrich(client=client, **{"identify": from_cookie("who"), "budget": 5.0, **options})
    extensions.append(extension)
    extension.init_app(app)

    def hello() -> str:
        return f"Hello {current_profile.get('id', 'nobody')}"

    @app.get("/read")
    def read() -> str:
        return hello()

    @app.get("/aread")
    async def aread() -> str:
        await asyncio.sleep(0)
        return hello()

    @app.get("/g")
    def from_g() -> str:
        return f"Hello {g.profile.get('id', 'nobody')}"

    @app.get("/plain")
    def plain() -> str:
        return "the same for all"

    @app.get("/template")
    def template() -> str:
        return render_template_string("Hello {{ profile.id or 'nobody' }}{{ profile.a.b.c }}")

    @app.get("/public")
    def public() -> Response:
        response = Response(hello())
        response.headers["Cache-Control"] = "public, s-maxage=60"
        response.headers["Surrogate-Control"] = "max-age=60"
        return response

    @app.get("/stream")
    def stream() -> Response:
        profile = g.profile
        profile.get("id")

        def parts() -> Iterator[str]:
            yield "data: "
            yield f"Hello {profile.get('id', 'nobody')}"

        return Response(parts())

    @app.get("/members")
    @profile_required
    def members() -> str:
        return "members"

    @app.get("/amembers")
    @profile_required
    async def amembers() -> str:
        return "members"

    @app.get("/encode")
    def encode() -> Response:
        return jsonify({"profile": current_profile})

    @app.get("/boom")
    def boom() -> str:
        hello()
        raise RuntimeError("boom")

    @app.errorhandler(500)
    def sorry(error: Exception) -> tuple[str, int]:
        return f"Sorry {current_profile.get('id', 'nobody')}", 500

    @app.get("/sign-in/<user>")
    def sign_in(user: str) -> str:
        session["user_id"] = user
        return "signed in"

    if cache is not None:
        _cached_pages(app, cache)
    return app


def _cached_pages(app: Flask, cache: Any) -> None:
    @app.get("/cached/read")
    @cache.cached(timeout=60)
    def cached_read() -> str:
        made.append("read")
        return f"Hello {current_profile.get('id', 'nobody')}"

    @app.get("/cached/plain")
    @cache.cached(timeout=60)
    def cached_plain() -> str:
        made.append("plain")
        return "the same for all"

    @app.before_request
    def early() -> None:
        from flask import request

        if request.path.startswith("/cached/early"):
            g.name = current_profile.get("id", "nobody")

    @app.get("/cached/early")
    @cache.cached(timeout=60)
    def cached_early() -> str:
        return f"Hello {g.name}"

    @cache.cached(timeout=60, key_prefix="greeting")
    def greeting() -> str:
        return f"Hello {current_profile.get('id', 'nobody')}"

    @app.get("/cached/function")
    def cached_function() -> str:
        return str(greeting())

    @cache.memoize(60)
    def memoized() -> str:
        made.append("memoized")
        return f"Hello {current_profile.get('id', 'nobody')}"

    @app.get("/cached/memoized")
    def cached_memoized() -> str:
        assert current_profile.reason != "not_found"  # read before as well as within
        return str(memoized())

    @cache.memoize(60)
    def offers(tier: str) -> str:
        made.append("offers")
        return f"offers for {tier}"

    @app.get("/cached/by-tier")
    def by_tier() -> str:
        return str(offers(current_profile.get("tier", "guest")))

    @app.get("/cached/fragment")
    def fragment() -> str:
        return render_template_string("{% cache 60, 'hi' %}Hello {{ profile.id or 'nobody' }}{% endcache %}")

    @app.get("/cached/own")
    def own() -> str:
        name = current_profile.get("id", "nobody")
        if cache.get(f"own:{name}") is None:
            made.append("own")
            cache.set(f"own:{name}", f"Hello {name}")
        return str(cache.get(f"own:{name}"))
