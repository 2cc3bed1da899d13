"""The Flask extension, with Flask-Caching inside, and its own sessions and users."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cachetools
import pytest

pytest.importorskip("flask", reason="Flask is not installed: pip install flask")

from flask import Flask, Response, g, session

from profile_enrich import (
    ConfigurationError,
    NotFound,
    Reason,
    from_cookie,
    from_session,
    from_user,
    honour_gpc,
    in_thread,
)
from profile_enrich.flask import ProfileEnrich, current_profile, refresh_profile
from profile_enrich.web import blocking_lookup
from profile_enrich.web.encoding_hint import HINT
from tests.frameworks import flask_app
from tests.frameworks.broken_functions import BROKEN
from tests.helpers import ScriptedSource, client_of, found, own_records

VISITORS = ["u1", "u2", None, "u2", "u1", None]


@pytest.fixture(autouse=True)
def closed_clients() -> Iterator[None]:
    yield
    while flask_app.extensions:
        flask_app.extensions.pop().close()


def loud(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in own_records(caplog) if record.levelno >= logging.WARNING]


def browser(app: Flask, user: str | None = None) -> Any:
    client = app.test_client()
    if user is not None:
        client.set_cookie("who", user)
    return client


def greets_everybody(app: Flask, path: str) -> None:
    for user in VISITORS:
        response = browser(app, user).get(path)
        assert response.text == f"Hello {user or 'nobody'}", (path, user)
        assert response.headers["Cache-Control"] == "private", (path, user)
        assert "Cookie" in response.headers["Vary"]


def test_A20_the_profile_of_whoever_is_in_session(caplog: pytest.LogCaptureFixture) -> None:
    """A20, A13: in all views and in templates; one lookup per person; personal pages have the headers."""
    source = ScriptedSource()
    app = flask_app.create(client_of(source))
    for path in ("/read", "/aread", "/g", "/template"):
        greets_everybody(app, path)
    for user in VISITORS:
        response = browser(app, user).get("/stream")
        assert response.text == f"data: Hello {user or 'nobody'}"
        assert response.headers["Cache-Control"] == "private"
    assert sorted(key.value for key in source.calls) == ["u1", "u2"]
    assert loud(caplog) == []


def test_A13_a_page_that_does_not_read_it_is_untouched() -> None:
    """A13: no lookup is made."""
    source = ScriptedSource()
    with_it = browser(flask_app.create(client_of(source)), "u1").get("/plain")
    assert source.calls == []
    assert "Vary" not in with_it.headers
    assert "Cache-Control" not in with_it.headers


def test_A14_what_invites_shared_caches_goes(caplog: pytest.LogCaptureFixture) -> None:
    """A14: with a warning."""
    response = browser(flask_app.create(client_of(ScriptedSource())), "u1").get("/public")
    assert response.headers["Cache-Control"] == "private"
    assert "Surrogate-Control" not in response.headers
    assert "made private" in loud(caplog)[0]


@pytest.mark.parametrize("kind", ["SimpleCache", "FileSystemCache"])
@pytest.mark.parametrize("order", ["cache first", "profile first"])
def test_A22_flask_caching_never_serves_one_persons_page_to_another(
    kind: str, order: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A22: `@cached` views and functions, memoized functions and fragments; shared results are still cached."""
    flask_caching = pytest.importorskip(
        "flask_caching", reason="Flask-Caching is not installed: pip install flask-caching"
    )
    cache = flask_caching.Cache(config={"CACHE_TYPE": kind, "CACHE_DIR": str(tmp_path)})
    cache_first = order == "cache first"
    source = ScriptedSource(lambda key: found(id=key.value, tier="gold" if key.value == "u1" else "tin"))
    app = flask_app.create(client_of(source), cache, cache_first=cache_first)
    if not cache_first:
        cache.init_app(app)
    for path in ("read", "early", "function", "fragment"):
        greets_everybody(app, f"/cached/{path}")
    greets_everybody(app, "/cached/memoized")
    flask_app.made.clear()
    for user in VISITORS:
        tier = {"u1": "gold", "u2": "tin"}.get(user or "", "guest")
        assert browser(app, user).get("/cached/by-tier").text == f"offers for {tier}"
        assert browser(app, user).get("/cached/plain").text == "the same for all"
        assert browser(app, user).get("/cached/own").text == f"Hello {user or 'nobody'}"
    assert sorted(flask_app.made) == ["offers", "offers", "offers", "own", "own", "own", "plain"]
    said = [line for line in loud(caplog) if "Flask-Caching was to keep" in line]
    assert len(said) == len(loud(caplog)) == 5, "once per view"


def test_A22_a_function_under_cachetools_that_gets_the_profile_for_itself_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = flask_app.create(client_of(ScriptedSource()))

    @cachetools.cached({})
    def greeting() -> str:
        return f"Hello {current_profile.get('id', 'nobody')}"

    @cachetools.cached({}, key=repr)
    def greeting_of(profile: Any) -> str:
        return f"Hello {profile.get('id', 'nobody')}"

    app.add_url_rule("/memo", view_func=greeting, endpoint="memo")
    app.add_url_rule("/memo-of", view_func=lambda: greeting_of(g.profile or g.profile), endpoint="memo-of")
    greets_everybody(app, "/memo-of")
    assert loud(caplog) == []
    for user in ("u1", "u2"):
        browser(app, user).get("/memo")
    assert ["it is cachetools" in text for text in loud(caplog)] == [True]


@pytest.mark.parametrize("before", [True, False])
def test_A16_a_stream_that_reads_it_first_is_logged(before: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A16: the headers are already sent, unless the view has read it."""
    app = flask_app.create(client_of(ScriptedSource()))

    def late() -> Response:
        profile = current_profile.detached() if before else g.profile
        return Response(f"Hello {profile.get('id', 'nobody')}" for _ in range(1))

    app.add_url_rule("/late", view_func=late)
    response = browser(app, "u1").get("/late")
    assert response.text == "Hello u1"
    assert response.headers.get("Cache-Control") == ("private" if before else None)
    assert ["could not be set" in text for text in loud(caplog)] == ([] if before else [True])


def test_A16_a_late_stream_has_the_session_of_its_request(caplog: pytest.LogCaptureFixture) -> None:
    app = flask_app.create(client_of(ScriptedSource()), identify=from_session("user_id"))

    def late() -> Response:
        profile = g.profile
        return Response(f"Hello {profile.get('id', 'nobody')}" for _ in range(1))

    app.add_url_rule("/late", view_func=late)
    visitor = browser(app)
    with visitor.session_transaction() as signed_in:
        signed_in["user_id"] = "u2"
    assert visitor.get("/late").text == "Hello u2"
    assert ["could not be set" in text for text in loud(caplog)] == [True]


def test_A22_without_the_extension_the_cache_does_serve_it() -> None:
    """Show that the test above can fail."""
    flask_caching = pytest.importorskip(
        "flask_caching", reason="Flask-Caching is not installed: pip install flask-caching"
    )
    app = Flask(__name__)
    cache = flask_caching.Cache(app, config={"CACHE_TYPE": "SimpleCache"})

    @app.get("/")
    @cache.cached(timeout=60)
    def home() -> str:
        from flask import request

        return f"Hello {request.cookies.get('who')}"

    assert browser(app, "u1").get("/").text == browser(app, "u2").get("/").text == "Hello u1"


def test_A15_finding_out_who_it_is_does_not_use_the_session() -> None:
    """A15: the session is not marked as accessed, so a page varies by cookie only if it read the profile."""
    app = flask_app.create(client_of(ScriptedSource()), identify=from_session())
    accessed: list[bool] = []

    @app.after_request
    def look(response: Any) -> Any:
        from flask.globals import request_ctx

        accessed.append(vars(request_ctx._get_current_object())["_session"].accessed)  # type: ignore[attr-defined]
        return response

    visitor = browser(app)
    visitor.get("/sign-in/u1")
    assert visitor.get("/read").text == "Hello u1"
    assert visitor.get("/read").headers.getlist("Vary") == ["Cookie"]
    assert "Vary" not in visitor.get("/plain").headers
    assert accessed == [True, False, False, False]


def test_A20_the_user_of_flask_login() -> None:
    """A20: `from_user`."""
    flask_login = pytest.importorskip("flask_login", reason="Flask-Login is not installed: pip install flask-login")
    app = flask_app.create(client_of(ScriptedSource()), identify=from_user("id"))
    manager = flask_login.LoginManager(app)

    class User:
        is_authenticated = is_active = True

        def __init__(self, id: str) -> None:
            self.id = id

        def get_id(self) -> str:
            return self.id

    manager.user_loader(User)

    @app.get("/log-in/<user>")
    def log_in(user: str) -> str:
        flask_login.login_user(User(user))
        return "in"

    visitor = browser(app)
    assert visitor.get("/read").text == "Hello nobody"
    visitor.get("/log-in/u5")
    assert visitor.get("/read").text == "Hello u5"


def test_A30_flask_logins_sign_in_and_sign_out_within_a_request_look_up_again() -> None:
    """A30: the view's profile is still the same object, and is empty after the sign-out."""
    flask_login = pytest.importorskip("flask_login", reason="Flask-Login is not installed: pip install flask-login")
    app = flask_app.create(client_of(ScriptedSource()), identify=from_user("id"))
    manager = flask_login.LoginManager(app)

    class User(flask_login.UserMixin):  # type: ignore[name-defined]
        def __init__(self, id: str) -> None:
            self.id = id

    manager.user_loader(User)

    @app.get("/switch")
    def switch() -> str:
        seen = []
        held = g.profile
        for user in (None, "u1", "u2"):
            flask_login.logout_user()
            if user is not None:
                flask_login.login_user(User(user))
            seen.append((held.get("id"), current_profile.get("id"), g.profile.get("id")))
        return str(seen)

    answer = browser(app).get("/switch")
    assert answer.text == str([(None,) * 3, ("u1",) * 3, ("u2",) * 3])
    assert answer.headers["Cache-Control"] == "private"


def test_A30_a_session_that_a_view_changes_is_looked_up_again_on_refresh() -> None:
    app = flask_app.create(client_of(ScriptedSource()), identify=from_session("user_id"))

    @app.get("/switch/<user>")
    def switch(user: str) -> str:
        held, before = g.profile, current_profile.get("id")
        session["user_id"] = user
        after = refresh_profile().get("id")
        session.clear()
        return str([before, after, held.get("id"), refresh_profile().reason, held.get("id")])

    visitor = browser(app)
    visitor.get("/sign-in/u1")
    assert visitor.get("/switch/u2").text == str(["u1", "u2", "u2", Reason.ANONYMOUS, None])
    with app.test_request_context():
        assert refresh_profile(attribute="other").reason is Reason.NOT_LOOKED_UP


@pytest.mark.parametrize("name", ["session", "sid"])
def test_A26_a_session_whose_cookie_is_there_twice_is_nobodys(name: str) -> None:
    """A26: the cookie's name is the application's own."""
    app = flask_app.create(client_of(ScriptedSource()), identify=from_session("user_id"))
    app.config["SESSION_COOKIE_NAME"] = name
    visitor = browser(app)
    visitor.get("/sign-in/u1")
    value = visitor.get_cookie(name).value
    assert app.test_client(use_cookies=False).get("/read", headers={"Cookie": f"{name}={value}"}).text == "Hello u1"
    twice = app.test_client(use_cookies=False).get("/read", headers={"Cookie": f"{name}=x; {name}={value}"})
    assert twice.text == "Hello nobody"


def test_A20_own_functions_take_flasks_request() -> None:
    """A20: also asynchronous ones, and inside of `first_of`."""
    from profile_enrich import first_of

    async def later(request: Any) -> str | None:
        value: str | None = request.args.get("later")
        return value

    app = flask_app.create(
        client_of(ScriptedSource()), identify=first_of(from_cookie("who"), lambda r: r.args.get("who"), later)
    )
    assert browser(app, "u1").get("/read?who=u2").text == "Hello u1"
    assert browser(app).get("/read?who=u2").text == "Hello u2"
    assert browser(app).get("/read?later=u3").text == "Hello u3"


def test_A17_consent_is_asked_before_the_lookup() -> None:
    """A17: `Sec-GPC: 1`."""
    source = ScriptedSource()
    app = flask_app.create(client_of(source), consent=honour_gpc())
    assert browser(app, "u1").get("/read", headers={"Sec-GPC": "1"}).text == "Hello nobody"
    assert source.calls == []
    assert browser(app, "u1").get("/read").text == "Hello u1"


@pytest.mark.parametrize("path", ["/read", "/aread"])
def test_A11_the_budget_holds_also_when_the_clients_loop_stands_still(path: str) -> None:
    """A11: the source blocks the client's event loop."""
    blocked = threading.Event()

    def block(key: Any) -> Any:
        blocked.wait(60)
        return found(id=key.value)

    app = flask_app.create(client_of(ScriptedSource(block)), budget=0.05)
    began = time.perf_counter()
    assert browser(app, "u1").get(path).text == "Hello nobody"
    assert time.perf_counter() - began < 20
    blocked.set()


def test_A10_a_function_that_fails_costs_the_profile_not_the_page(caplog: pytest.LogCaptureFixture) -> None:
    """A10: and is logged once."""
    app = flask_app.create(client_of(ScriptedSource()), identify=lambda request: 1 / 0)
    assert [browser(app).get("/read").text for _ in range(3)] == ["Hello nobody"] * 3
    assert len(loud(caplog)) == 1


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("role", ["consent", "identify"])
@pytest.mark.parametrize("budget", [0.05, None])
def test_A31_a_function_that_hangs_or_cancels_counts_as_no_within_its_bound(
    broken: Any, role: str, budget: float | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A31: also without a budget."""
    monkeypatch.setattr(blocking_lookup, "HANG", 0.05)
    source = ScriptedSource()
    app = flask_app.create(client_of(source), budget=budget, **{role: broken})
    started = time.monotonic()
    assert [browser(app, "u1").get("/read").text for _ in range(2)] == ["Hello nobody"] * 2
    assert time.monotonic() - started < 10
    assert source.calls == []
    assert len([text for text in loud(caplog) if "function raised" in text]) == 1


@pytest.mark.parametrize(
    ("identify", "remedy"), [(from_session("user_id"), "app.secret_key"), (from_user("id"), "LoginManager(app)")]
)
def test_A26_what_an_identity_function_needs_and_flask_does_not_have_is_logged_once(
    identify: Any, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A26: an application without a secret key has no session, one without Flask-Login no user."""
    app = Flask(__name__)
    ProfileEnrich(app, client=client_of(ScriptedSource()), identify=identify)
    app.add_url_rule("/read", view_func=lambda: f"Hello {current_profile.get('id', 'nobody')}")
    assert [browser(app).get("/read").text for _ in range(2)] == ["Hello nobody"] * 2
    assert [remedy in text for text in loud(caplog)] == [True]


@pytest.mark.parametrize("role", ["consent", "identify"])
def test_A31_a_function_that_takes_long_is_logged_once_and_in_a_thread_it_costs_the_budget(
    role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A31: a server thread waits for a synchronous function regardless of the budget."""

    def slow(request: object) -> object:
        time.sleep(0.3)
        return True if role == "consent" else "u1"

    given: dict[str, Any] = {role: slow}
    pages = browser(flask_app.create(client_of(ScriptedSource()), budget=0.05, **given), "u1")
    for _ in range(2):
        pages.get("/read")
    assert [f"the {role.removesuffix('ify')}" in text for text in loud(caplog)].count(True) == 1
    given = {role: in_thread(slow)}
    pages = browser(flask_app.create(client_of(ScriptedSource()), budget=0.05, **given), "u1")
    assert pages.get("/read").text == "Hello nobody"


def test_A10_views_that_require_a_profile_answer_with_the_reason() -> None:
    """A10: 401 if not signed in, 403 without consent, 404 without a profile."""
    source = ScriptedSource(lambda key: NotFound() if key.value == "u3" else found(id=key.value))
    app = flask_app.create(client_of(source), consent=honour_gpc())
    for path in ("/members", "/amembers"):
        assert [browser(app, user).get(path).status_code for user in ("u1", None, "u3")] == [200, 401, 404]
        assert browser(app, "u1").get(path, headers={"Sec-GPC": "1"}).status_code == 403
        assert browser(app, "u1").get(path).headers["Cache-Control"] == "private"


def test_A13_an_error_page_says_it_is_personal() -> None:
    """A13: the error handler reads the profile after the view has failed."""
    response = browser(flask_app.create(client_of(ScriptedSource())), "u1").get("/boom")
    assert (response.status_code, response.text) == (500, "Sorry u1")
    assert response.headers["Cache-Control"] == "private"


def test_A5_requests_in_one_pushed_context_share_no_profile() -> None:
    """A5: Flask shares `g` between the requests of a test that has pushed an application's context."""
    app = flask_app.create(client_of(ScriptedSource()))
    with app.app_context():
        for user in VISITORS:
            for path in ("/read", "/g"):
                assert browser(app, user).get(path).text == f"Hello {user or 'nobody'}"


def test_A23_after_the_request_the_profile_is_sealed() -> None:
    """A23: code that kept the profile reads an empty one."""
    app = flask_app.create(client_of(ScriptedSource()))
    kept: list[Any] = []

    @app.get("/keep")
    def keep() -> str:
        kept.append(g.profile)
        return str(g.profile.get("id"))

    response = browser(app, "u1").get("/keep")
    assert response.text == "u1"
    response.close()
    assert kept[0].get("id") is None


def test_many_threads_share_one_thread_of_the_client() -> None:
    """Lookups need one thread, regardless of the number of threads that serve pages."""
    source = ScriptedSource(delay=0.02)
    app = flask_app.create(client_of(source))
    before = sum(thread.name == "profile_enrich" for thread in threading.enumerate())
    texts: list[str] = []

    def visit(number: int) -> None:
        texts.append(browser(app, f"u{number % 4}").get("/read").text)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == sorted(f"Hello u{number % 4}" for number in range(32))
    assert len(source.calls) == 4
    assert sum(thread.name == "profile_enrich" for thread in threading.enumerate()) == before + 1


def test_what_cannot_be_encoded_says_what_to_call() -> None:
    app = flask_app.create(client_of(ScriptedSource()))
    app.testing = True
    app.error_handler_spec.clear()
    app.add_url_rule("/itself", "itself", cast(Any, lambda: current_profile))
    app.add_url_rule("/itself-of-g", "itself-of-g", lambda: g.profile)
    app.add_url_rule("/in-session", "in-session", lambda: session.update(profile=current_profile) or "")
    for path in ("/encode", "/itself-of-g", "/in-session"):
        with pytest.raises(TypeError) as raised:
            browser(app, "u1").get(path)
        assert raised.value.__notes__ == [HINT]
    with pytest.raises(ConfigurationError, match="as_dict"):
        browser(app, "u1").get("/itself")


def test_A25_one_attribute_is_for_one_extension() -> None:
    client = client_of(ScriptedSource())
    app = Flask(__name__)
    ProfileEnrich(app, client=client, identify=from_cookie("who"))
    with pytest.raises(ConfigurationError, match="attribute 'profile' is taken"):
        ProfileEnrich(app, client=client, identify=from_cookie("who"))


def test_A26_a_missing_extension_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A26: the page is served."""
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: str(current_profile.get("id", "nobody")))
    assert browser(app).get("/").text == "nobody"
    assert "add ProfileEnrich" in loud(caplog)[0]
