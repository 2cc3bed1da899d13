"""Django's page cache beside the middleware, in every order of MIDDLEWARE."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("django", reason="Django is not installed: pip install django")

from django.core.cache import cache

from profile_enrich.client.client import ProfileClient
from tests.frameworks import django_pages
from tests.frameworks.django_site import AUTH, EARLY, FETCH, OURS, SESSION, UPDATE, Browser, body, site
from tests.helpers import ScriptedSource, client_of

pytestmark = pytest.mark.usefixtures("people")

ORDERS = [
    order
    for order in itertools.permutations((UPDATE, SESSION, AUTH, OURS, FETCH))
    if order.index(SESSION) < order.index(AUTH) and order.index(UPDATE) < order.index(FETCH)
]
"""Every order in which Django runs: users need sessions, and the two halves of the page cache have their order."""

WITHOUT_CACHE = [
    order for order in itertools.permutations((SESSION, AUTH, OURS)) if order.index(SESSION) < order.index(AUTH)
]

VISITORS = ["1", "2", None, "2", "1", None]


def names(order: tuple[str, ...]) -> str:
    return ">".join(path.rpartition(".")[2].removesuffix("Middleware") for path in order)


@pytest.fixture
def client() -> ProfileClient:
    return client_of(ScriptedSource())


def greets_everybody(browsers: dict[str | None, Browser], path: str) -> None:
    for user in VISITORS:
        response = browsers[user].get(path)
        assert body(response) == f"Hello {user or 'nobody'}", (path, user)
        assert response["Cache-Control"] == "private", (path, user)
        assert "cookie" in response["Vary"].lower()


@pytest.mark.parametrize(
    ("order", "asgi"),
    [
        pytest.param(
            order, asgi, id=f"{names(order)}-{'asgi' if asgi else 'wsgi'}", marks=pytest.mark.long if other else ()
        )
        for place, order in enumerate(ORDERS)
        for other, asgi in enumerate((bool(place % 2), not place % 2))  # `make test` takes the two handlers in turns
    ],
)
def test_A22_the_per_site_cache_never_serves_one_persons_page_to_another(
    client: ProfileClient, order: tuple[str, ...], asgi: bool
) -> None:
    """A22: at each position, with synchronous and asynchronous views; pages for all are still cached."""
    with site(client, order):
        browsers = {user: Browser(asgi, user) for user in ("1", "2", None)}
        for path in ("/read", "/aread", "/template", "/cached/read"):
            greets_everybody(browsers, path)
        for path in ("/plain", "/aplain"):
            django_pages.rendered.clear()
            assert {browsers[user].text(path) for user in VISITORS} == {"the same for all"}
            assert django_pages.rendered == [path]


@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("order", WITHOUT_CACHE, ids=names)
def test_A22_cache_page_never_serves_one_persons_page_to_another(
    client: ProfileClient, order: tuple[str, ...], asgi: bool
) -> None:
    """A22: the decorator is inside of all middleware, which have not set their headers yet."""
    with site(client, order):
        browsers = {user: Browser(asgi, user) for user in ("1", "2", None)}
        for path in ("/cached/read", "/cached/aread", "/cached/template"):
            greets_everybody(browsers, path)
        for path in ("/cached/plain", "/cached/aplain"):
            django_pages.rendered.clear()
            assert {browsers[user].text(path) for user in VISITORS} == {"the same for all"}
            assert django_pages.rendered == [path]


@pytest.mark.parametrize(
    "order",
    [
        (SESSION, AUTH, OURS, EARLY, UPDATE, FETCH),
        (UPDATE, SESSION, AUTH, OURS, EARLY, FETCH),
        (SESSION, AUTH, OURS, EARLY),
    ],
    ids=names,
)
def test_A22_a_profile_read_in_front_of_the_page_cache_counts(client: ProfileClient, order: tuple[str, ...]) -> None:
    """A22: a middleware reads it, then the cache looks for the page, then the view uses what was read."""
    with site(client, order):
        browsers = {user: Browser(False, user) for user in ("1", "2", None)}
        for path in ("/early", "/cached/early"):
            greets_everybody(browsers, path)


def test_A22_a_cached_fragment_is_one_persons(client: ProfileClient) -> None:
    """A22: `{% cache 60 greeting profile %}`; the page is personal, also when the fragment came from the cache."""
    with site(client):
        browsers = {user: Browser(False, user) for user in ("1", None)}
        for user in ("1", None, "1", None, "1"):
            response = browsers[user].get("/fragment")
            assert body(response) == f"Hello {user or 'nobody'}"
            assert response["Cache-Control"] == "private"


def test_A22_without_the_middleware_the_cache_does_serve_it(client: ProfileClient) -> None:
    """The tests above can fail: a page that names its reader without reading a profile is served to the next one."""
    with site(client, (UPDATE, SESSION, AUTH, "tests.frameworks.test_django_page_cache.NamesReader", FETCH)):
        cache.clear()
        assert Browser().get("/early", who="Ann").content == b"Hello Ann"
        assert Browser().get("/early", who="Bo").content == b"Hello Ann"


class NamesReader:
    def __init__(self, get_response: object) -> None:
        self.get_response = get_response

    def __call__(self, request: object) -> object:
        request.early = request.headers["who"]  # type: ignore[attr-defined]
        return self.get_response(request)  # type: ignore[operator]
