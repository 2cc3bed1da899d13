"""Django with the middleware, in this process: settings, people, and browsers for WSGI and ASGI."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.test import AsyncClient, Client, override_settings

from profile_enrich.client.client import ProfileClient

UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"
OURS = "profile_enrich.django.DjangoProfileMiddleware"
EARLY = "tests.frameworks.django_pages.ReadsEarly"
AFTER = "tests.frameworks.django_pages.ReadsAfter"

TEMPLATES = {
    "hello.html": "Hello {{ profile.id|default:'nobody' }}",
    "fragment.html": "{% load cache %}{% cache 60 greeting profile %}"
    "Hello {{ profile.id|default:'nobody' }}{% endcache %}",
    "missing.html": "{{ profile.age }}|{{ profile.status }}|{{ profile.a.b.c }}|{% if profile.n > 3 %}many{% endif %}|"
    "{% for x in profile.tags %}{{ x }}{% empty %}none{% endfor %}|{{ profile.n|add:1 }}|{{ profile.name|upper }}|"
    "{{ profile.tags|length }}|{% if profile %}known{% else %}unknown{% endif %}|{{ profile.o|safe }}",
}


@contextlib.contextmanager
def site(client: ProfileClient, middleware: Sequence[str] = (SESSION, AUTH, OURS), **options: Any) -> Iterator[None]:
    """Have Django serve the pages with this middleware. `options` are keys of `PROFILE_ENRICH`, or other settings."""
    from profile_enrich.django.settings import load_config

    others = {name: options.pop(name) for name in list(options) if name not in _OURS}
    with override_settings(
        **{
            "ROOT_URLCONF": "tests.frameworks.django_pages",
            "MIDDLEWARE": list(middleware),
            "PROFILE_ENRICH": {"CLIENT": client, "BUDGET": 5.0, **options},
            "CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "pages"}},
            "TEMPLATES": [
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "OPTIONS": {
                        "context_processors": ["profile_enrich.django.context_processors.profile"],
                        "loaders": [("django.template.loaders.locmem.Loader", TEMPLATES)],
                    },
                }
            ],
            "DEBUG_PROPAGATE_EXCEPTIONS": False,
            **others,
        }
    ):
        caches["default"].clear()
        try:
            yield
        finally:
            load_config().client.close()


_OURS = {"IDENTIFY", "CONSENT", "BUDGET", "EXCLUDE", "ATTRIBUTE", "VARY_ON", "SERVER_TIMING"}


class Browser:
    """One person's browser, at a Django of WSGI or ASGI.

    Args:
        asgi: whether Django's ASGI handler serves it.
        user: the id of the user who is signed in.
    """

    def __init__(self, asgi: bool = False, user: str | None = None) -> None:
        self.client: Any = AsyncClient(raise_request_exception=False) if asgi else Client(raise_request_exception=False)
        self._asgi = asgi
        if user is not None:
            from django.contrib.auth.models import User

            self.client.force_login(User.objects.get_or_create(id=user, username=f"user{user}")[0])

    def get(self, path: str, **headers: str) -> Any:
        get = async_to_sync(self.client.get) if self._asgi else self.client.get
        return get(path, headers=headers)

    def text(self, path: str) -> str:
        response = self.get(path)
        assert response.status_code == 200, response
        return body(response)


def body(response: Any) -> str:
    """The response's text; that of a streamed one is collected."""
    if not response.streaming:
        return str(response.content.decode())
    if response.is_async:

        async def collected() -> bytes:
            return b"".join([part async for part in response.streaming_content])

        text = async_to_sync(collected)()
    else:
        text = b"".join(response.streaming_content)
    response.close()
    return str(text.decode())
