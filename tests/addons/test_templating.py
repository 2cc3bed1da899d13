"""The profile in Jinja2 templates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette.testclient import TestClient

from profile_enrich import CensusSource, MemorySource, Profile, ProfileClient, ProfileMiddleware, Record
from profile_enrich.templating import ProfileContext, TemplateProfile, profile_context
from profile_enrich.testing import VendorServer

ADA = {
    "first_name": "Ada",
    "age": 36,
    "status": "member",
    "items": ["tea"],
    "email": None,
    "address": {"city": "London", "items": {"n": 3}},
    "gifts": [{"name": "tea"}, {"name": "tea", "note": {"text": "hi"}}],
}


def rendered(text: str, who: Profile, undefined: Any = jinja2.Undefined) -> str:
    environment = jinja2.Environment(undefined=undefined, autoescape=True)
    return environment.from_string(text).render(profile=TemplateProfile(who))


@pytest.mark.parametrize("undefined", [jinja2.Undefined, jinja2.StrictUndefined])
@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("{{ profile.first_name or 'there' }}", "Ada", "there"),
        ("{{ profile.email or 'no address' }}", "no address", "no address"),
        ("{{ profile.nothing }}", "", ""),
        ("{{ profile.address.city or 'your city' }}", "London", "your city"),
        ("{{ profile.address.zip or 'no zip' }}", "no zip", "no zip"),
        ("{{ profile.address['items'].n }}", "3", ""),
        ("{{ profile.age }} {{ profile.status }}", "36 member", " "),
        ("{{ profile['items'] | length }}", "1", "0"),
        ("{% if profile %}yes{% else %}no{% endif %}", "yes", "no"),
        ("{% if 'age' in profile %}yes{% else %}no{% endif %}", "yes", "no"),
        ("{{ profile | length }}", "7", "0"),
        ("{% if profile.age > 3 %}yes{% else %}no{% endif %}", "yes", "no"),
        (
            "{% if profile.visits > 3 or 3 < profile.visits or 3 == profile.visits %}yes{% else %}no{% endif %}",
            "no",
            "no",
        ),
        ("{{ profile.visits|int }} {{ profile.visits|int(7) }} {{ profile.visits|float }}", "0 7 0.0", "0 7 0.0"),
        ("{{ profile.visits + 1 }}{{ 1 + profile.visits }}{{ 2 * profile.visits - 1 }}{{ -profile.visits }}", "", ""),
        ("{{ 7 // profile.visits }}{{ 'a' ~ profile.visits }}{{ 'a' + profile.visits }}", "a", "a"),
        ("{{ profile.visits|round }}{{ profile.visits|abs }}{{ profile.visits|sum }}", "0", "0"),
        ("{{ profile.first_name|tojson }}", '"Ada"', '""'),
        ("{{ profile.address|tojson }}", '{"city": "London", "items": {"n": 3}}', '""'),
        ("{{ profile['items']|tojson }}", '["tea"]', '""'),
        ("{{ profile.first_name.upper() or 'X' }}", "ADA", "X"),
        ("{{ profile.nick.upper().strip()[1:]|upper or 'X' }}", "X", "X"),
        ("{{ profile.nick|default('you') }} {{ profile.nick is defined }}", "you False", "you False"),
        ("{{ profile.title|title }}{{ profile.offer.title.count.index }}", "", ""),
        ("{{ profile.offers|length }}{{ profile.offers|join(',') }}", "0", "0"),
        ("{% for offer in profile.offers %}{{ offer.name }}{% else %}none{% endfor %}", "none", "none"),
        ("{% for gift in profile.gifts %}{{ gift.note.text or gift.name }},{% endfor %}", "tea,hi,", ""),
        ("{{ profile.gifts[1].note.text }}{{ profile.gifts[7].note.text or 'X' }}{{ profile.gifts.x }}", "hiX", "X"),
        ("{{ profile.gifts|map(attribute='name')|join(',') }}", "tea,tea", ""),
        ("{{ profile.gifts|selectattr('note')|list|length }}", "1", "0"),
        (
            "{% for name, value in profile.address|items %}{{ name }}={{ value is mapping }},{% endfor %}",
            "city=False,items=True,",
            "",
        ),
        (
            "{{ profile.address|dictsort|length }}{{ profile.age in profile.ages }}{{ 3 in profile.ages }}",
            "2FalseFalse",
            "0FalseFalse",
        ),
        ("{{ '%s' % profile.nick }}{% for item in profile.items %}{{ item }}{% endfor %}", "tea", ""),
        ("{{ '{}|{:>3}'.format(profile.nick, profile.visits) }}{{ profile.nick|replace('a', 'b') }}", "|", "|"),
        ("{% for name in profile %}{{ name }},{% endfor %}", "first_name,age,status,items,email,address,gifts,", ""),
    ],
)
def test_names_are_the_customers_attributes_and_nothing_missing_fails(
    text: str, known: str, unknown: str, undefined: Any
) -> None:
    assert rendered(text, Profile(Record(ADA)), undefined) == known
    assert rendered(text, Profile(), undefined) == unknown


EXTRA = {
    "attr": "('x')", "batch": "(2)", "slice": "(2)", "groupby": "('x')", "map": "('upper')", "reject": "('odd')",
    "select": "('odd')", "rejectattr": "('x')", "selectattr": "('x')", "replace": "('a', 'b')", "join": "(',')",
    "divisibleby": "(2)", "in": "([1])", "sameas": "(1)",
}  # fmt: skip
"""Arguments of the filters and tests that need some."""

COMPARISONS = {"eq", "equalto", "ge", "greaterthan", "gt", "le", "lessthan", "lt", "ne"}


@pytest.mark.parametrize("undefined", [jinja2.Undefined, jinja2.StrictUndefined])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("expression", ["profile.no", "profile.null", "profile.empty[0]", "profile.no.city.name"])
def test_every_filter_and_test_of_jinja_takes_what_is_missing(undefined: Any, is_async: bool, expression: str) -> None:
    environment = jinja2.Environment(undefined=undefined, autoescape=True, enable_async=is_async)
    snippets = [f"{{{{ {expression}|{name}{EXTRA.get(name, '')} }}}}" for name in environment.filters]
    snippets += [
        f"{{{{ {expression} is {name}{'(3)' if name in COMPARISONS else EXTRA.get(name, '')} }}}}"
        for name in environment.tests
        if name.isidentifier()
    ]
    snippets += [f"{{{{ '{code}' % {expression} }}}}" for code in ("%d", "%5i", "%x", "%.2f", "%e", "%g", "%s", "%r")]
    snippets += [f"{{{{ '{code}'|format({expression}) }}}}" for code in ("%d", "%.2f", "%s")]
    snippets += [f"{{% for _ in range({expression}) %}}x{{% endfor %}}"]
    assert len(snippets) > 90
    for who in (Profile(Record({"null": None, "empty": []})), Profile()):
        for snippet in snippets:
            environment.from_string(snippet).render(profile=TemplateProfile(who))


@pytest.mark.parametrize("undefined", [jinja2.Undefined, jinja2.StrictUndefined])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("items", ["profile.no", "profile.empty", "profile.nested.none", "profile.of"])
@pytest.mark.parametrize("one", ["first", "last", "min", "max", "random"])
def test_one_item_of_nothing_is_missing(undefined: Any, is_async: bool, items: str, one: str) -> None:
    environment = jinja2.Environment(undefined=undefined, autoescape=True, enable_async=is_async)
    template = f"{{{{ ({items}|{one}).name.upper() or 'X' }}}}{{% if ({items}|{one}) > 3 %}}yes{{% endif %}}"
    template += f"{{% for item in {items} %}}y{{% endfor %}}{{{{ {items}|list|length }}}}{{{{ {items}|length }}}}"
    who = Profile(Record({"empty": [], "nested": {}, "of": {}}))
    assert environment.from_string(template).render(profile=TemplateProfile(who)) == "X00"
    some = TemplateProfile(Profile(Record({"tags": [3]})))
    assert environment.from_string(f"{{{{ profile.tags|{one} }}}}").render(profile=some) == "3"


def test_numbers_that_are_missing_are_formatted_as_0_and_filters_keep_their_default() -> None:
    text = "{{ '%.2f'|format(profile.n) }} {{ '%s %d' % ('a', profile.n) }} {{ '%d' % profile.n }} "
    text += "{{ profile.n|float(7) }} {{ profile.n|int(8) }}"
    assert rendered(text, Profile()) == "0.00 a 0  7 8"
    assert rendered(text, Profile(Record({"n": 3}))) == "3.00 a 3 3 3.0 3"


def test_values_are_escaped_as_any_other() -> None:
    assert rendered("{{ profile.name }}", Profile(Record({"name": "<b>"}))) == "&lt;b&gt;"


def test_A18_printing_the_whole_shows_nothing_personal() -> None:
    """A18: no personal data in reprs."""
    page = rendered("{{ profile }} {{ profile.address }}", Profile(Record(ADA)))
    assert "Ada" not in page
    assert page.startswith("<Profile skipped, 7 attributes, #")
    assert re.search(r"<TemplateProfile, 2 values, #[0-9a-f]{16}>$", page)


@pytest.fixture
def templates(tmp_path: Path) -> Jinja2Templates:
    (tmp_path / "home.html").write_text("hello {{ profile.first_name or 'there' }}", encoding="utf-8")
    (tmp_path / "plain.html").write_text("hello", encoding="utf-8")
    (tmp_path / "other.html").write_text("{{ who.first_name }}", encoding="utf-8")
    return Jinja2Templates(
        directory=tmp_path, context_processors=[profile_context, ProfileContext("person", name="who")]
    )


def shop(templates: Jinja2Templates, source: Any = None, **options: Any) -> TestClient:
    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, request.path_params["name"])

    client = ProfileClient(source or MemorySource({"u1": ADA}))
    middleware = [
        Middleware(ProfileMiddleware, client=client, identify=lambda request: request.headers.get("x-user"), **options)
    ]
    return TestClient(Starlette(routes=[Route("/{name}", page)], middleware=middleware))


def test_A13_a_template_that_gets_the_profile_makes_the_page_private(templates: Jinja2Templates) -> None:
    """A13: a declared profile counts as read, because the template may cache fragments."""
    browser = shop(templates)
    home = browser.get("/home.html", headers={"x-user": "u1"})
    assert (home.text, home.headers["cache-control"], home.headers["vary"]) == ("hello Ada", "private", "Cookie")
    assert browser.get("/home.html").text == "hello there"
    plain = browser.get("/plain.html", headers={"x-user": "u1"})
    assert plain.headers["cache-control"] == "private"


def test_A10_with_the_vendor_down_the_page_is_the_one_for_everybody(tmp_path: Path) -> None:
    (tmp_path / "shop.html").write_text(
        "{{ profile.first_name|title or 'there' }}: {% if profile.visits > 3 %}lounge{% else %}tea{% endif %} "
        "{{ '%.2f'|format(profile.balance) }} {{ profile.gifts|first }}{{ (profile.tags|first).name }}"
        "{% for gift in profile.gifts %}{{ gift.note.text }}{% endfor %}{{ profile.visits + 1 }}",
        encoding="utf-8",
    )
    strict = jinja2.Environment(
        loader=jinja2.FileSystemLoader(tmp_path), undefined=jinja2.StrictUndefined, autoescape=True
    )
    with VendorServer({"u1": {"first_name": "ada"}}, key="secret") as vendor:
        source = CensusSource(api_key="secret", entity="Users", base_url=vendor.base_url)
        browser = shop(Jinja2Templates(env=strict, context_processors=[profile_context]), source=source, budget=5.0)
        assert browser.get("/shop.html", headers={"x-user": "u1"}).text == "Ada: tea 0.00 "
    page = browser.get("/shop.html", headers={"x-user": "u2"})
    assert (page.status_code, page.text) == (200, "there: tea 0.00 ")


def test_another_name_and_attribute(templates: Jinja2Templates) -> None:
    assert shop(templates, attribute="person").get("/other.html", headers={"x-user": "u1"}).text == "Ada"


def test_without_the_middleware_it_is_empty(templates: Jinja2Templates) -> None:
    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "home.html")

    assert TestClient(Starlette(routes=[Route("/", page)])).get("/").text == "hello there"
