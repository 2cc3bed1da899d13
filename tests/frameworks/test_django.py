"""The Django integration: WSGI and ASGI, synchronous and asynchronous views."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

pytest.importorskip("django", reason="Django is not installed: pip install django")

from django.http import HttpRequest
from django.test import RequestFactory

from profile_enrich import NotFound, from_cookie, from_header, from_session, honour_gpc
from profile_enrich.django import lookup
from profile_enrich.django.testing import attach_profile, override_profiles
from profile_enrich.web import blocking_lookup, user_callbacks
from profile_enrich.web.encoding_hint import HINT
from tests.frameworks import django_pages
from tests.frameworks.broken_functions import BROKEN
from tests.frameworks.django_site import AFTER, AUTH, OURS, SESSION, Browser, body, site
from tests.helpers import ScriptedSource, client_of, found, own_records

pytestmark = pytest.mark.usefixtures("people")

BOTH = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


def loud(records: list[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


@BOTH
def test_A20_the_profile_of_whoever_is_in_session(
    asgi: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A20: in synchronous and asynchronous views, in templates and streams; one lookup a person."""
    monkeypatch.setattr(user_callbacks, "BLOCKING", 60.0)  # reading the session takes long on a busy machine
    source = ScriptedSource()
    with site(client_of(source)):
        for user in ("1", "2", None, "1"):
            browser = Browser(asgi, user)
            for page in ("/read", "/aread", "/template"):
                assert browser.text(page) == f"Hello {user or 'nobody'}"
            for page in ("/stream", "/astream"):
                assert browser.text(page) == f"data: Hello {user or 'nobody'}"
    assert sorted(key.value for key in source.calls) == ["1", "2"]
    assert loud(own_records(caplog)) == []


@BOTH
def test_A13_a_page_that_does_not_read_it_is_untouched(asgi: bool) -> None:
    """A13: for anonymous visitors, the headers are those without the middleware, although the session was read."""
    source = ScriptedSource()
    with site(client_of(source)):
        with_it = {page: dict(Browser(asgi, "1").get(page).items()) for page in ("/plain", "/aplain")}
    assert source.calls == []
    with site(client_of(source), (SESSION, AUTH)):
        without = {page: dict(Browser(asgi, "1").get(page).items()) for page in ("/plain", "/aplain")}
    assert with_it == without


@BOTH
def test_A14_what_invites_shared_caches_goes(asgi: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A14: `public`, `s-maxage` and targeted fields go with a warning; `Vary` is merged."""
    with site(client_of(ScriptedSource())):
        response = Browser(asgi, "1").get("/public")
    assert response["Cache-Control"] == "private, max-age=60"
    assert "CDN-Cache-Control" not in response
    assert {name.strip() for name in response["Vary"].split(",")} == {"Accept-Language", "Authorization", "Cookie"}
    assert "made private" in loud(own_records(caplog))[0]


def test_A15_finding_out_who_it_is_does_not_use_the_session() -> None:
    """A15: an identity function that looks at the session leaves `accessed` as it was."""
    seen: list[bool] = []

    def identify(request: HttpRequest) -> str | None:
        return None if request.session.get("nobody") is None else "1"

    class Looks:
        def __init__(self, get_response: Any) -> None:
            self.get_response = get_response

        def __call__(self, request: Any) -> Any:
            response = self.get_response(request)
            seen.append(request.session.accessed)
            return response

    django_pages.Looks = Looks  # type: ignore[attr-defined]
    with site(client_of(ScriptedSource()), (SESSION, "tests.frameworks.django_pages.Looks", OURS), IDENTIFY=identify):
        Browser().get("/read")
    assert seen == [False]


@BOTH
@pytest.mark.parametrize(
    "identify",
    [
        from_cookie("who"),
        from_header("X-Who", trusted=True),
        from_session("who"),
        lambda request: request.META.get("HTTP_X_WHO"),
        "tests.frameworks.test_django.identify_async",
    ],
    ids=["cookie", "header", "session", "own function of the request", "own async function by its path"],
)
def test_A20_ready_made_and_own_identity_functions(asgi: bool, identify: Any) -> None:
    """A20: the ready-made ones of ASGI, and functions that take Django's request."""
    with site(client_of(ScriptedSource()), IDENTIFY=identify):
        browser = Browser(asgi, "1")
        browser.client.cookies["who"] = "u7"
        session = browser.client.session
        session["who"] = "u7"
        session.save()
        browser.client.cookies["sessionid"] = session.session_key
        for page in ("/read", "/aread"):
            assert body(browser.get(page, X_Who="u7")) == "Hello u7"


async def identify_async(request: HttpRequest) -> str | None:
    who: str | None = request.headers.get("X-Who")
    return who


@BOTH
def test_A17_consent_is_asked_before_the_lookup(asgi: bool) -> None:
    """A17: without consent there is no call; the deciding header is in `Vary`."""
    source = ScriptedSource()
    with site(client_of(source), CONSENT=honour_gpc()):
        for page in ("/read", "/aread"):
            response = Browser(asgi, "1").get(page, Sec_GPC="1")
            assert body(response) == "Hello nobody"
            assert "Sec-GPC" in response["Vary"]
        assert source.calls == []
        assert Browser(asgi, "1").text("/read") == "Hello 1"


@BOTH
@pytest.mark.parametrize("page", ["/read", "/aread"])
def test_A11_a_hung_source_delays_a_page_by_the_budget(asgi: bool, page: str) -> None:
    """A11: the page is served without a profile, and the load continues for the next page."""
    source = ScriptedSource(delay=0.5)
    with site(client_of(source), BUDGET=0.05):
        browser = Browser(asgi, "1")
        browser.get("/plain")
        assert browser.text(page) == "Hello nobody"  # it would contain the name if it had waited for the load
        end = time.monotonic() + 20
        while browser.text(page) == "Hello nobody" and time.monotonic() < end:
            time.sleep(0.05)
        assert browser.text(page) == "Hello 1"
    assert len(source.calls) == 1


@BOTH
@pytest.mark.parametrize("page", ["/read", "/aread"])
def test_A11_the_budget_holds_when_the_clients_loop_stands_still(asgi: bool, page: str) -> None:
    """A11: the page does not wait while the client's event loop is blocked (here by its source)."""
    blocked = threading.Event()

    def block(key: Any) -> Any:
        blocked.wait(60)
        return found(id=key.value)

    with site(client_of(ScriptedSource(block)), BUDGET=0.05):
        browser = Browser(asgi, "1")
        began = time.perf_counter()
        assert browser.text(page) == "Hello nobody"
        assert time.perf_counter() - began < 20
        blocked.set()


@BOTH
@pytest.mark.parametrize("page", ["/read", "/aread"])
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("role", ["CONSENT", "IDENTIFY"])
def test_A31_a_function_that_hangs_or_cancels_counts_as_no_within_its_bound(
    asgi: bool, page: str, broken: Any, role: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A31: also without a budget."""
    monkeypatch.setattr(blocking_lookup, "HANG", 0.05)
    monkeypatch.setattr(lookup, "HANG", 0.05)
    source = ScriptedSource()
    for budget in (0.05, None):
        with site(client_of(source), BUDGET=budget, **{role: broken}):
            started = time.monotonic()
            assert Browser(asgi, "1").text(page) == "Hello nobody"
            assert time.monotonic() - started < 10
    assert source.calls == []
    assert len([text for text in loud(own_records(caplog)) if "function raised" in text]) == 2


@BOTH
@pytest.mark.parametrize("role", ["IDENTIFY", "CONSENT"])
def test_A10_a_function_that_fails_costs_the_profile_not_the_page(
    asgi: bool, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A10: and is logged once."""

    def fails(request: HttpRequest) -> str:
        raise ValueError("-".join(("planted", "7f3a")))

    options: dict[str, Any] = {role: fails}
    with site(client_of(ScriptedSource()), **options):
        for page in ("/read", "/aread", "/read"):
            assert Browser(asgi, "1").text(page) == "Hello nobody"
    assert len(loud(own_records(caplog))) == 1
    assert "planted-7f3a" not in caplog.text


@BOTH
def test_A10_views_that_require_a_profile_answer_with_the_reason(asgi: bool) -> None:
    """A10: 401 if not signed in, 403 without consent, 404 without a profile."""
    source = ScriptedSource(lambda key: NotFound() if key.value == "3" else found(id=key.value))
    with site(client_of(source), CONSENT=honour_gpc()):
        for page in ("/members", "/amembers"):
            statuses = [Browser(asgi, user).get(page).status_code for user in ("1", None, "3")]
            assert statuses == [200, 401, 404]
            assert Browser(asgi, "1").get(page, Sec_GPC="1").status_code == 403
            assert Browser(asgi, "1").get(page)["Cache-Control"] == "private"


@BOTH
def test_A13_an_error_page_says_it_is_personal(asgi: bool) -> None:
    """A13, A23: Django makes the page for an exception inside of the middleware."""
    with site(client_of(ScriptedSource())):
        response = Browser(asgi, "1").get("/boom")
    assert (response.status_code, body(response)) == (500, "Sorry 1")
    assert response["Cache-Control"] == "private"


@BOTH
@pytest.mark.parametrize("page", ["/encode", "/aencode", "/encode-itself", "/encode-in-session"])
def test_what_cannot_be_encoded_says_what_to_call(asgi: bool, page: str, caplog: pytest.LogCaptureFixture) -> None:
    with site(client_of(ScriptedSource())):
        assert Browser(asgi, "1").get(page).status_code == 500
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [getattr(error, "__notes__", None) for error in errors] == [[HINT]]


@BOTH
def test_A16_a_stream_that_reads_it_first_is_logged(asgi: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A16: the response has started, so its headers cannot change."""
    with site(client_of(ScriptedSource())):
        Browser(asgi, "1").text("/late")
    assert "could not be set" in loud(own_records(caplog))[0]


def test_A26_an_asynchronous_view_that_forgot_to_await_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A26: once, with the remedy."""
    with site(client_of(ScriptedSource())):
        for _ in range(2):
            assert Browser(True, "1").text("/forgot") == "Hello nobody"
    assert [line for line in loud(own_records(caplog)) if "await request.aprofile()" in line] == loud(
        own_records(caplog)
    )
    assert len(loud(own_records(caplog))) == 1


def test_A26_a_profile_read_before_the_user_is_known_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A26: a middleware in front of AuthenticationMiddleware reads it."""
    early = "tests.frameworks.django_pages.ReadsEarly"
    with site(client_of(ScriptedSource()), (OURS, early, SESSION, AUTH)):
        for _ in range(2):
            assert Browser(False, "1").text("/early") == "Hello nobody"
    messages = loud(own_records(caplog))
    assert len(messages) == 1
    assert "put AuthenticationMiddleware before" in messages[0]


def test_A5_an_attribute_of_another_name_and_excluded_paths() -> None:
    """A5: `ATTRIBUTE` and `EXCLUDE`."""
    source = ScriptedSource()
    with site(client_of(source), EXCLUDE=["/static"]):
        assert '"not_looked_up"' in Browser(False, "1").text("/static/details")
        assert '"reason": null' in Browser(False, "1").text("/details")
    assert len(source.calls) == 1


@BOTH
def test_templates_render_what_is_missing_as_empty(asgi: bool) -> None:
    """A missing attribute is empty, and no attribute of the class `Profile` is visible."""
    for answer, known in ((lambda key: NotFound(), "unknown"), (lambda key: found(o=None), "known")):
        with site(client_of(ScriptedSource(answer))):
            text = Browser(asgi, "1").text("/missing")
        assert text == f"||||none|||0|{known}|"


def test_many_threads_share_one_thread_of_the_client() -> None:
    """Lookups need one thread, regardless of the number of threads that serve pages."""
    source = ScriptedSource(delay=0.02)
    with site(client_of(source)):
        browsers = [Browser(False, str(number % 4 + 1)) for number in range(16)]
        others = threading.enumerate()
        most: list[int] = []
        texts: list[str] = []

        def visit(browser: Browser) -> None:
            texts.append(browser.text("/read"))
            most.append(sum(each.name == "profile_enrich" for each in threading.enumerate() if each not in others))

        threads = [threading.Thread(target=visit, args=(browser,)) for browser in browsers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(most) == 1
        assert threading.active_count() <= len(others) + 1
    assert sorted(texts) == sorted(f"Hello {number % 4 + 1}" for number in range(16))
    assert len(source.calls) == 4


def test_help_for_tests() -> None:
    """`override_profiles` answers from memory; `attach_profile` needs no middleware."""
    with site(client_of(ScriptedSource())):
        with override_profiles({"1": {"id": "from memory"}}):
            assert Browser(False, "1").text("/read") == "Hello from memory"
        assert Browser(False, "1").text("/read") == "Hello 1"
    request = RequestFactory().get("/read")
    attach_profile(request, {"id": "Ann"})
    assert django_pages.read(request).content == b"Hello Ann"
    attach_profile(request, None)
    assert django_pages.read(request).content == b"Hello nobody"


@BOTH
def test_A24_djangos_debug_page_holds_no_value(asgi: bool) -> None:
    """A24: the page shows the variables of every frame, and the request."""
    source = ScriptedSource(lambda key: found(id=key.value, email="planted-a91c@example.com"))
    with site(client_of(source), DEBUG=True):
        page = Browser(asgi, "1").get("/boom")
    assert page.status_code == 500
    assert "RuntimeError" in body(page)
    assert "planted-a91c" not in body(page)


@BOTH
def test_A23_a_middleware_outside_sees_no_person(asgi: bool) -> None:
    """A23: once the request has left the middleware."""
    django_pages.ReadsAfter.seen.clear()
    with site(client_of(ScriptedSource()), (AFTER, SESSION, AUTH, OURS)):
        for page in ("/plain", "/read"):
            Browser(asgi, "1").get(page)
    assert django_pages.ReadsAfter.seen == ["sealed", "sealed"]


@BOTH
def test_A26_a_session_whose_cookie_is_there_twice_is_nobodys(asgi: bool) -> None:
    with site(client_of(ScriptedSource())):
        person = Browser(asgi, "1")
        value = person.client.cookies["sessionid"].value
        assert person.text("/read") == "Hello 1"
        # Django's asynchronous client sends its own cookies in a field beside this one, the other one instead of them.
        twice = f"sessionid={value}" if asgi else f"sessionid={value}; sessionid={value}"
        assert body(person.get("/read", Cookie=twice)) == "Hello nobody"


@BOTH
@pytest.mark.parametrize("page", ["/switch-by-session", "/aswitch-by-session"])
def test_A30_a_session_that_a_view_changes_is_looked_up_again_on_refresh(asgi: bool, page: str) -> None:
    def customer(request: Any) -> str:
        return str(request.session.get("customer", "1"))

    with site(client_of(ScriptedSource()), IDENTIFY=customer):
        assert Browser(asgi, "1").text(page) == "1 2"


@BOTH
@pytest.mark.parametrize("page", ["/switch", "/aswitch"])
def test_A30_signing_out_and_in_within_a_request_looks_up_again(asgi: bool, page: str) -> None:
    """A30: the profile follows Django's signals."""
    with site(client_of(ScriptedSource())):
        Browser(asgi, "2")
        assert Browser(asgi, "1").text(page) == "1 nobody 2"
