"""The code of the documents' framework pages, run in the framework."""

from __future__ import annotations

import re
import sys
import types
import unittest

import pytest

pytest.importorskip("django", reason="Django is not installed: pip install django")

from django.test import override_settings
from django.urls import path

from tests.docs.helpers import DOCS, code_of
from tests.frameworks.django_site import Browser


@pytest.mark.parametrize(("page", "module"), [("aiohttp.md", "aiohttp"), ("litestar.md", "litestar")])
def test_a_page_whose_code_has_to_be_a_module(page: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its framework looks names up in the module of a handler. The page's own assertions are run."""
    pytest.importorskip(module, reason=f"{module} is not installed: pip install {module}")
    blocks = re.findall(r"^```py\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    code = "from __future__ import annotations\n" + "\n".join(blocks)
    assert "assert" in code
    shop = types.ModuleType("shop_of_the_page")
    monkeypatch.setitem(sys.modules, shop.__name__, shop)
    exec(compile(code, page, "exec"), vars(shop))


@pytest.mark.usefixtures("people")
def test_the_page_about_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings and its views serve a page, and its test case passes."""
    page = code_of("django.md")
    for name in ("home", "offers", "account"):
        page[name].__module__ = "shop.urls"  # the page is not a module
    project = types.ModuleType("shop.profiles")
    project.client = page["client"]  # type: ignore[attr-defined]
    urls = types.ModuleType("shop.urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("", page["home"]),
        path("offers", page["offers"]),
        path("account", page["account"]),
    ]
    for name, module in (("shop", types.ModuleType("shop")), ("shop.profiles", project), ("shop.urls", urls)):
        monkeypatch.setitem(sys.modules, name, module)
    with override_settings(
        ROOT_URLCONF="shop.urls",
        MIDDLEWARE=page["MIDDLEWARE"],
        PROFILE_ENRICH=page["PROFILE_ENRICH"],
        TEMPLATES=page["TEMPLATES"],
    ):
        from django.core.checks import run_checks

        from profile_enrich.django.settings import load_config

        assert run_checks(tags=["profile_enrich"]) == []
        for asgi in (False, True):
            assert Browser(asgi, "1").text("/") == "Hello Ada"
            assert Browser(asgi, "1").text("/offers") == "lounge"
            assert Browser(asgi, "1").text("/account") == "Tier: gold"
            assert Browser(asgi, None).get("/account").status_code == 401
        load_config().client.close()  # the test case below brings a configuration of its own
        for name in ("test_it_greets_by_name", "test_the_view_alone"):
            result = unittest.TestResult()
            page["HomePage"](name)(result)
            assert result.wasSuccessful(), result.failures + result.errors
        load_config().client.close()
