"""The operator's console, as operators use it: both processes, over HTTP."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Secret
from starlette.testclient import TestClient

from examples import demo
from examples.operator_console.__main__ import CUSTOMERS, main
from examples.operator_console.app import create_app
from examples.operator_console.attempts import PER_ADDRESS, PER_NAME_AND_ADDRESS, WINDOW_SECONDS, Attempts
from examples.operator_console.audit_log import AuditLog
from examples.operator_console.database import open_database, subject_secret
from examples.operator_console.finder import Handles
from examples.operator_console.passwords import hash_password, is_password, make_password
from examples.operator_console.roles import heading, load_roles
from examples.operator_console.sessions import IDLE_SECONDS, LONGEST_SECONDS, Sessions
from examples.operator_console.settings import Settings
from examples.operator_console.users import Users
from profile_enrich import MemorySource
from profile_enrich.testing import ManualClock

from .console import Browser, RunningConsole, quick_passwords
from .shop import free_port

with CUSTOMERS.open(encoding="utf-8", newline="") as _file:
    PEOPLE = {row["customer_id"]: row for row in csv.DictReader(_file)}
ADA = PEOPLE["C-1001"]
ROLES = load_roles(Settings(api_key=Secret("unused")).roles)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_passwords():
        yield


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningConsole]:
    with RunningConsole(tmp_path_factory.mktemp("console")).running() as running:
        yield running


@pytest.fixture(scope="module")
def ann(console: RunningConsole) -> Iterator[Browser]:
    with console.operator("ann") as browser:
        yield browser


@pytest.fixture(scope="module")
def sam(console: RunningConsole) -> Iterator[Browser]:
    with console.operator("sam") as browser:
        yield browser


@pytest.fixture(scope="module")
def tess(console: RunningConsole) -> Iterator[Browser]:
    with console.operator("tess") as browser:
        yield browser


# --- getting in -----------------------------------------------------------------------------------------------------


def test_nobody_sees_anything_without_signing_in(console: RunningConsole) -> None:
    with console.browser() as browser:
        for path in ("/", "/search", "/audit-log", "/password", "/profile/0123456789abcdef"):
            response = browser.get(path)
            assert response.url.path == "/sign-in"
        answer = browser.ask({"kind": "id", "value": "C-1001"})
        assert (answer.status_code, answer.json()) == (401, {"error": "signed_out"})
        assert ADA["last_name"] not in answer.text


def test_a_wrong_password_and_an_unknown_name_look_the_same(console: RunningConsole) -> None:
    with console.browser() as browser:
        wrong = browser.sign_in("sam", "not-the-password")
        unknown = browser.sign_in("my-own-secret-phrase", "not-the-password")
        assert (wrong.status_code, unknown.status_code) == (401, 401)
        assert wrong.text == unknown.text
        assert "wrong" in browser.text
        assert browser.get("/").url.path == "/sign-in"
    assert ("refused", "", "", "wrong password") in console.audit_log("sam")
    # A secret typed into the name field is not stored.
    assert b"my-own-secret-phrase" not in all_bytes(console.data)


def test_signing_in_is_limited(console: RunningConsole) -> None:
    with console.browser() as browser:
        for _ in range(PER_NAME_AND_ADDRESS):
            assert browser.sign_in("lou", "not-the-password").status_code == 401
        refused = browser.sign_in("lou", console.passwords["lou"])
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= WINDOW_SECONDS
        assert "Too many attempts" in browser.text
        # Another user at the same address can still sign in.
        assert browser.sign_in("sam", console.passwords["sam"]).url.path == "/"


def sign_in_from(browser: Browser, address: str, name: str, password: str) -> int:
    browser.client.headers["x-forwarded-for"] = address
    return browser.sign_in(name, password).status_code


@pytest.mark.long
def test_W3_an_address_that_a_client_makes_up_evades_no_limit(tmp_path: Path) -> None:
    with RunningConsole(tmp_path).running() as console, console.browser() as browser:
        statuses = [
            sign_in_from(browser, f"203.0.113.{number}", "ann", "not-the-password")
            for number in range(PER_NAME_AND_ADDRESS + 3)
        ]
    assert statuses == [401] * PER_NAME_AND_ADDRESS + [429] * 3


@pytest.mark.long
def test_W3_failures_from_elsewhere_lock_no_owner_out(tmp_path: Path) -> None:
    proxied = RunningConsole(tmp_path, CONSOLE_TRUSTED_PROXIES="127.0.0.1")
    with proxied.running() as console, console.browser() as browser:
        for number in range(100):
            assert sign_in_from(browser, f"203.0.113.{number}", "ann", "not-the-password") == 401
        home = "198.51.100.7"
        for _ in range(PER_NAME_AND_ADDRESS):
            assert sign_in_from(browser, home, "sam", "not-the-password") == 401
        assert sign_in_from(browser, home, "sam", "not-the-password") == 429  # the proxy's header is trusted
        assert sign_in_from(browser, home, "ann", console.passwords["ann"]) == 200


@pytest.mark.long
def test_the_very_first_user_has_a_one_time_password_and_chooses_another(console: RunningConsole) -> None:
    (password,) = re.findall(r"one-time password of admin, shown this once: (\S+)", console.said())
    with console.browser() as browser:
        assert browser.sign_in("admin", password).url.path == "/password"
        for path in ("/", "/audit-log"):
            assert browser.get(path).url.path == "/password"
        assert browser.ask({"kind": "id", "value": "C-1001"}).json() == {"error": "change_password"}
        old = browser.client.cookies["console"]
        for current, new, again, complaint in (
            (password, "short", "short", "at least|12 to 256"),
            (password, "a-long-new-password", "another-new-password", "not typed the same"),
            (password, password, password, "another one"),
            ("wrong", "a-long-new-password", "a-long-new-password", "current password is wrong"),
        ):
            refused = browser.post("/password", current=current, new=new, again=again)
            assert refused.status_code == 422
            assert re.search(complaint, browser.text)
        done = browser.post("/password", current=password, new="a-long-new-password", again="a-long-new-password")
        assert done.url.path == "/"
        assert "new password is set" in browser.text
        assert browser.client.cookies["console"] != old
    with console.browser(cookies={"console": old}) as before:
        assert before.get("/").url.path == "/sign-in"
    assert password not in all_bytes(console.data).decode("latin-1")
    assert b"scrypt$15$8$3$" in all_bytes(console.data)


def test_signing_out_ends_it_also_for_a_copied_cookie(console: RunningConsole) -> None:
    with console.operator("sam") as browser:
        browser.search("C-1001")
        copied = {"console": browser.client.cookies["console"]}
        assert browser.post("/sign-out").url.path == "/sign-in"
        assert "console" not in browser.client.cookies
    with console.browser(cookies=copied) as thief:
        assert thief.get("/").url.path == "/sign-in"


def test_after_signing_in_one_is_where_one_wanted_to_be_on_this_site(console: RunningConsole) -> None:
    with console.browser() as browser:
        asked = browser.get("/audit-log")
        assert asked.url.params["next"] == "/audit-log"
        assert browser.sign_in("ann", console.passwords["ann"], "/audit-log").url.path == "/audit-log"
        assert browser.sign_in("ann", console.passwords["ann"], "//elsewhere.example").url.path == "/"
        assert browser.get("/sign-in").url.path == "/"


# --- what a role sees -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ann", "sam", "tess"])
def test_fields_that_are_not_for_a_role_are_in_no_answer(name: str, request: pytest.FixtureRequest) -> None:
    browser: Browser = request.getfixturevalue(name)
    role = ROLES[{"ann": "admin", "sam": "support", "tess": "trainee"}[name]]
    response = browser.search("C-1001")
    assert response.url.path.startswith("/profile/")
    expected = {field: value for field, value in ADA.items() if role.show is None or field in role.show}
    assert browser.fields == expected
    hidden = {field: value for field, value in ADA.items() if field not in expected}
    panel = browser.ask({"kind": "id", "value": "C-1001"})
    assert {field["name"]: field["text"] for field in panel.json()["fields"]} == expected
    assert panel.json()["hidden"] == len(hidden)
    assert (f'data-hidden="{len(hidden)}"' in browser.page) == bool(hidden)
    for field, value in hidden.items():
        assert f'"name":"{field}"' not in panel.text
        assert f'data-field="{field}"' not in browser.page
        if len(value) > 4:
            assert value not in panel.text
            assert value not in browser.page


def test_a_role_searches_only_by_what_it_may(tess: Browser, ann: Browser, console: RunningConsole) -> None:
    tess.get("/")
    assert re.findall(r'<option value="([^"]+)"', tess.page) == ["id"]
    assert tess.search(ADA["email"], "email").status_code == 403
    answer = tess.ask({"kind": "email", "value": ADA["email"]})
    assert (answer.status_code, answer.json()) == (403, {"error": "not_allowed"})
    assert [line[:2] for line in console.audit_log("tess")].count(("refused", "email")) == 2
    ann.get("/")
    assert re.findall(r'<option value="([^"]+)"', ann.page) == ["id", "email", "phone", "city", "tier"]
    # Only configured identifiers can be searched; an unknown kind is not logged.
    assert ann.search("2", "fraud_score-of-" + ADA["email"]).status_code == 403
    assert ADA["email"].encode() not in all_bytes(console.data)


def test_a_list_shows_the_roles_fields_and_notes_each_person(sam: Browser, console: RunningConsole) -> None:
    before = len(console.audit_log("sam"))
    response = sam.search("Gothenburg", "city")
    assert response.status_code == 200
    assert "Ada Lindqvist" in sam.text
    assert "Jonas Lindqvist" in sam.text
    assert ADA["phone"] not in sam.page
    noted = console.audit_log("sam")[before:]
    assert [(action, kind, outcome) for action, kind, _, outcome in noted] == [
        ("searched", "city", "2 profiles"), ("listed", "id", "found"), ("listed", "id", "found"),
    ]  # fmt: skip
    links = re.findall(r'href="(/profile/[0-9a-f]+)"', sam.page)
    assert {link.rpartition("/")[2] for link in links} == {subject for _, kind, subject, _ in noted if kind == "id"}
    assert sam.get(links[1]).status_code == 200
    assert sam.fields["city"] == "Gothenburg"


def test_more_than_a_page_of_matches_says_so(ann: Browser, console: RunningConsole) -> None:
    ann.search("gold", "tier")
    gold = [row for row in PEOPLE.values() if row["tier"] == "gold"]
    assert len(re.findall(r'href="/profile/', ann.page)) == len(gold)
    assert "There are more" not in ann.text


@pytest.mark.parametrize(
    ("kind", "value", "status"),
    [("id", "C-9999", 404), ("email", "nobody@mail.example", 404), ("email", "ADA.LINDQVIST@mail.example", 404),
     ("id", " ", 422), ("id", "../../etc", 404), ("id", "x" * 3000, 422), ("email", "a&filter[tier]=gold", 404)],
)  # fmt: skip
def test_what_is_not_there_is_said_kindly(sam: Browser, kind: str, value: str, status: int) -> None:
    response = sam.search(value, kind)
    assert response.status_code == status
    assert 'role="alert"' in sam.page


def test_text_from_a_profile_is_text(tmp_path: Path) -> None:
    odd = MemorySource({"x": {"first_name": "<script>alert(1)</script>", "nested": {"a": ["<b>", None]}, "flag": True}})
    with signed_in(tmp_path, odd) as browser:
        browser.search("x")
        assert "<script" not in browser.page
        assert browser.fields["nested"] == '{"a": ["<b>", null]}'
        assert browser.fields["flag"] == "yes"


# --- the audit log --------------------------------------------------------------------------------------------------


def test_every_look_is_noted_and_shown_beside_the_profile(
    sam: Browser, ann: Browser, tess: Browser, console: RunningConsole
) -> None:
    sam.search("C-1013")
    subject = console.audit_log("sam")[-1][2]
    assert [line[0] for line in console.audit_log("sam")[-2:]] == ["searched", "viewed"]
    assert sam.ask({"kind": "email", "value": PEOPLE["C-1013"]["email"]}).json()["found"]
    assert console.audit_log("sam")[-1] == ("panel", "id", subject, "found")
    ann.search("C-1013")
    history = re.findall(r"<li><span>(\w+)</span> <span class=\"tag\">([\w ]+)</span>", ann.page)
    assert history[:2] == [("ann", "viewed"), ("ann", "searched")]
    assert ("sam", "panel") in history
    assert ("sam", "viewed") in history
    ann.get("/audit-log")
    assert subject[:12] in ann.page
    for role in (sam, tess):
        assert role.get("/audit-log").status_code == 403


def test_the_audit_log_is_filtered_by_who_what_and_subject(ann: Browser, sam: Browser, console: RunningConsole) -> None:
    sam.search("C-1003")
    subject = console.audit_log("sam")[-1][2]

    def lines(query: str) -> list[tuple[str, str, str]]:
        ann.get(f"/audit-log?{query}")
        return re.findall(
            r"</time></td><td>(\w+)</td><td>\w+</td><td>([\w ]+)</td><td>\w*</td><td><code>(\w+)", ann.page
        )

    assert {who for who, _, _ in lines("who=sam")} == {"sam"}
    assert {what for _, what, _ in lines("action=viewed")} == {"viewed"}
    assert {about for _, _, about in lines(f"subject={subject[:12]}")} == {subject[:12]}
    assert lines(f"who=sam&action=viewed&subject={subject[:12]}") == [("sam", "viewed", subject[:12])]
    assert lines("who=nobody%27--") == []
    assert "No line matches" in ann.text


def test_the_search_keeps_what_was_typed(sam: Browser) -> None:
    answer = sam.search('C-9"<1>')
    assert answer.status_code == 404
    assert 'value="C-9&#34;&lt;1&gt;"' in sam.page


def test_the_audit_log_and_the_urls_have_no_id_and_no_value(sam: Browser, console: RunningConsole) -> None:
    response = sam.search(ADA["email"], "email")
    assert response.url.path.startswith("/profile/")
    assert re.fullmatch("/profile/[0-9a-f]{32}", response.url.path)
    kept = all_bytes(console.data)
    for row in PEOPLE.values():
        for value in (row["customer_id"], row["email"], row["phone"]):
            assert value.encode() not in kept
    assert console.key.encode() not in kept


def test_a_profile_is_open_to_the_session_that_found_it_alone(sam: Browser, tess: Browser) -> None:
    path = sam.search("C-1016").url.path
    assert sam.get(path).status_code == 200
    refused = tess.get(path)
    assert refused.status_code == 404
    assert "Search again" in tess.text
    assert tess.post(f"{path}/forget").status_code == 404


def test_old_lines_go_and_the_audit_log_has_pages(tmp_path: Path) -> None:
    clock = ManualClock()
    with closing(open_database(tmp_path)) as database:
        audit_log = AuditLog(database, subject_secret(tmp_path), clock=clock)
        audit_log.note("ann", "admin", "viewed", "a" * 32, kind="id", outcome="found")
        clock.advance(86_400 * 10)
        for _ in range(5):
            audit_log.note("ann", "admin", "viewed", "b" * 32, kind="id", outcome="found")
        assert len(audit_log.latest()) == 6
        audit_log.prune(9)
        assert [entry.subject for entry in audit_log.latest()] == ["b" * 32] * 5
        first = audit_log.latest(3)
        assert len(audit_log.latest(3, first[-1].number)) == 2
        # The secret is kept over a restart, so a person keeps the same subject.
        assert AuditLog(database, subject_secret(tmp_path)).subject("id", "x") == audit_log.subject("id", "x")
    assert (tmp_path / "subjects.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "console.db").stat().st_mode & 0o077 == 0


# --- forgetting -----------------------------------------------------------------------------------------------------


def test_forgetting_a_profile_asks_the_profile_api_anew(sam: Browser, tess: Browser, console: RunningConsole) -> None:
    before = console.records_asked()
    path = sam.search("C-1018").url.path
    sam.get(path)
    assert "From the cache" in sam.text
    assert console.records_asked() == before + 1
    done = sam.post(f"{path}/forget")
    assert done.url.path == "/"
    assert "Removed from the cache" in sam.text
    assert console.audit_log("sam")[-1][0] == "forgot"
    sam.get(path)
    assert console.records_asked() == before + 2
    theirs = tess.search("C-1018").url.path
    assert "Forget this profile" not in tess.text
    assert tess.post(f"{theirs}/forget").status_code == 403
    assert console.audit_log("tess")[-1][0] == "refused"
    assert console.records_asked() == before + 2


# --- the side panel's question --------------------------------------------------------------------------------------


def test_the_panel_gets_the_profile_as_json(sam: Browser) -> None:
    answer = sam.ask({"kind": "email", "value": ADA["email"]})
    assert answer.status_code == 200
    body = answer.json()
    assert body["found"]
    assert (body["heading"], body["operator"], body["role"]) == ("Ada Lindqvist", "sam", "support")
    assert body["history"][0] == {"at": body["history"][0]["at"], "who": "sam", "action": "panel"}
    assert len(body["history"]) <= 5
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers
    assert sam.get(body["url"]).status_code == 200
    assert not sam.ask({"kind": "id", "value": "C-9999"}).json()["found"]
    several = sam.ask({"kind": "city", "value": "Gothenburg"})
    assert (several.status_code, several.json()) == (409, {"error": "several"})


@pytest.mark.parametrize(
    "question",
    [b"", b"{", b"[" * 15_000, [], "C-1001", {"kind": "id"}, {"kind": "id", "value": 1}, {"kind": "id", "value": ""}],
)  # fmt: skip
def test_a_question_that_is_none_is_refused(sam: Browser, question: object) -> None:
    answer = sam.ask(question)
    assert (answer.status_code, answer.json()) == (422, {"error": "invalid"})


# --- other sites ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/search", "/password", "/profile/x/forget"])
def test_no_other_site_can_send_a_form(sam: Browser, path: str) -> None:
    for headers in ({"origin": "https://elsewhere.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert sam.client.post(path, data={"kind": "id", "value": "C-1001"}, headers=headers).status_code == 403
    assert sam.get("/").url.path == "/"


def test_a_form_without_its_token_is_refused(sam: Browser, console: RunningConsole) -> None:
    sam.get("/")
    for token in ("", "x", "ü"):
        refused = sam.post("/search", csrf=token, kind="id", value="C-1001")
        assert refused.status_code == 403
        assert ADA["last_name"] not in refused.text
    assert sam.post("/sign-out", csrf="x").status_code == 403
    assert sam.get("/").url.path == "/"


@pytest.mark.parametrize(
    "headers",
    [{"x-console": ""}, {"x-console": "other"}, {"origin": "https://elsewhere.example"}, {"origin": "null"}],
)
def test_no_other_site_can_ask_as_the_panel_does(sam: Browser, headers: dict[str, str]) -> None:
    answer = sam.ask({"kind": "id", "value": "C-1001"}, **headers)
    assert answer.status_code == 403
    assert ADA["last_name"] not in answer.text


def test_large_bodies_are_refused(sam: Browser) -> None:
    assert sam.ask(b" " * 20_000).status_code == 413
    assert sam.client.post("/search", content=iter([b"kind=id"]), headers={"x": "y"}).status_code == 413


def test_pages_are_not_kept_and_load_nothing_from_elsewhere(sam: Browser, console: RunningConsole) -> None:
    for path in ("/", sam.search("C-1001").url.path, "/password", "/nowhere"):
        response = sam.get(path)
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "<script" not in response.text
        assert not re.search(r"\sstyle=|\son\w+=", response.text)
    assert response.status_code == 404
    with console.browser() as browser:
        response = browser.client.post(
            "/sign-in", data={"name": "sam", "password": console.passwords["sam"]}, follow_redirects=False
        )
        cookie = response.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "path=/" in cookie


# --- settings, users, parts -----------------------------------------------------------------------------------------


class InProcess(Browser):
    """The same, without a server."""

    def __init__(self, client: Any, url: str) -> None:
        self.client = client
        self.url = url
        self.page = ""

    def post(self, path: str, **form: str) -> httpx.Response:
        token = re.search(r'name="csrf" value="([^"]+)"', self.page)
        response = self.client.post(
            path, data={"csrf": token[1] if token else "", **form}, headers={"origin": self.url}
        )
        self.page = response.text
        return response


@contextlib.contextmanager
def signed_in(data: Path, source: MemorySource | None = None, **settings: Any) -> Iterator[InProcess]:
    """A console in this process, with a user `ann` of the role `admin` who is signed in."""
    with closing(open_database(data)) as database:
        password = Users(database).add("ann", "admin", must_change=False)
    app = create_app(Settings(api_key=Secret("a-key-of-this-test-only"), data=data, **settings), source)
    with TestClient(app, base_url="https://console.example") as client:
        browser = InProcess(client, "https://console.example")
        assert browser.sign_in("ann", password).url.path == "/"
        yield browser


def test_a_console_behind_https_has_a_cookie_for_https_alone(tmp_path: Path) -> None:
    with signed_in(tmp_path, MemorySource({}), secure_cookie=True) as browser:
        (cookie,) = browser.client.cookies.jar
        assert cookie.name == "__Host-console"
        assert cookie.secure
        assert browser.post("/sign-out").url.path == "/sign-in"
        assert not list(browser.client.cookies.jar)


def test_while_the_profile_api_is_down_it_says_so(tmp_path: Path) -> None:
    with signed_in(tmp_path, api_url=f"http://127.0.0.1:{free_port()}/api", search_by=("email",)) as browser:
        for kind in ("id", "email"):
            assert browser.search("C-1001", kind).status_code == 503
            assert "source_connection" in browser.text
            answer = browser.ask({"kind": kind, "value": "C-1001"})
            assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")


def test_a_census_entity_is_searched_by_id(console: RunningConsole, tmp_path: Path) -> None:
    url = f"http://{demo.HOST}:{console.api_port}/api/v1"
    environment = {
        "CONSOLE_API_KEY": console.key, "CONSOLE_API": "census", "CONSOLE_API_URL": url, "CONSOLE_DATA": str(tmp_path),
        "CONSOLE_ID_COLUMN": "customer_id",
    }  # fmt: skip
    settings = Settings.from_environment(environment)
    with closing(open_database(tmp_path)) as database:
        password = Users(database).add("ann", "admin", must_change=False)
    with TestClient(create_app(settings), base_url="https://console.example") as client:
        browser = InProcess(client, "https://console.example")
        browser.sign_in("ann", password)
        browser.search("C-1001")
        assert browser.fields["email"] == ADA["email"]
        assert browser.search(ADA["email"], "email").status_code == 403


@pytest.mark.parametrize(
    ("variables", "name"),
    [({}, "CONSOLE_API_KEY"), ({"CONSOLE_API_KEY": "k", "CONSOLE_API": "x"}, "CONSOLE_API"),
     ({"CONSOLE_API_KEY": "k", "CONSOLE_TTL": "soon"}, "CONSOLE_TTL"),
     ({"CONSOLE_API_KEY": "k", "CONSOLE_KEEP_DAYS": "0"}, "CONSOLE_KEEP_DAYS"),
     ({"CONSOLE_API_KEY": "k", "CONSOLE_API": "census", "CONSOLE_SEARCH_BY": "email"}, "CONSOLE_SEARCH_BY")],
)  # fmt: skip
def test_a_wrong_setting_is_named(
    variables: dict[str, str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"], {"CONSOLE_DATA": str(tmp_path / "none"), **variables}) == 1
    assert name in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "names no role"), ("[a", "cannot be read"), ("a = 1", "exactly"), ('[a]\nshow="*"', "exactly"),
     ('[a]\nshow="all"\nsearch="*"\nforget=true\naudit_log=true', "show must be"),
     ('[a]\nshow=["x", "*"]\nsearch="*"\nforget=true\naudit_log=true', "show must be"),
     ('[a]\nshow="*"\nsearch=[1]\nforget=true\naudit_log=true', "search must be"),
     ('[a]\nshow="*"\nsearch="*"\nforget="yes"\naudit_log=true', "forget must be")],
)  # fmt: skip
def test_a_file_of_roles_that_makes_no_sense_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "roles.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        load_roles(path)


def test_a_profile_is_called_by_what_the_role_sees() -> None:
    assert heading(ROLES["support"].view(ADA)) == "Ada Lindqvist"
    assert heading(ROLES["trainee"].view(ADA)) == "Ada"
    assert heading(ROLES["admin"].view({"display_name": "Household 1"})) == "Household 1"
    assert heading(ROLES["admin"].view({"first_name": None})) == "Profile"


def test_users_are_made_and_removed_by_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"CONSOLE_DATA": str(tmp_path)}

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["user", *arguments], environment)
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = run("add", "bo", "--role", "support")
    assert code == 0
    password = said.rsplit(" ", 1)[1].strip()
    assert run("list") == (0, "bo support (has a one-time password)\n")
    code, said = run("reset", "bo")
    assert code == 0
    with closing(open_database(tmp_path)) as database:
        stored = Users(database).stored("bo")
        assert stored is not None
        assert not is_password(password, stored)
        assert is_password(said.rsplit(" ", 1)[1].strip(), stored)
    assert run("remove", "bo") == (0, "")
    for wrong, complaint in (
        (("add", "bo", "--role", "king"), "no role king"), (("add", "B o", "--role", "admin"), "small letters"),
        (("reset", "bo"), "no user bo"), (("remove", "bo"), "no user bo"),
    ):  # fmt: skip
        code, said = run(*wrong)
        assert code == 1
        assert complaint in said


def test_passwords_are_salted_and_long() -> None:
    one, two = make_password(), make_password()
    assert one != two
    assert len(one) == 23
    assert hash_password(one) != hash_password(one)


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(tmp_path: Path) -> None:
    clock = ManualClock()
    with closing(open_database(tmp_path)) as database:
        Users(database).add("ann", "admin")
        sessions = Sessions(database, clock)
        idle, used = sessions.start("ann"), sessions.start("ann")
        for _ in range(int(LONGEST_SECONDS // (IDLE_SECONDS - 1))):
            clock.advance(IDLE_SECONDS - 1)
            assert sessions.read(used) is not None
        assert sessions.read(idle) is None
        clock.advance(LONGEST_SECONDS % IDLE_SECONDS + 60)
        assert sessions.read(used) is None
        assert sessions.read("") is None
        assert sessions.read("x") is None
        sessions.start("ann")
        assert database.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
        # A removed user is signed out at once.
        Users(database).remove("ann")
        assert database.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


def test_W3_attempts_are_counted_by_address_and_by_name_there() -> None:
    clock = ManualClock()
    attempts = Attempts(clock)
    for _ in range(PER_NAME_AND_ADDRESS):
        assert attempts.begin("ann", "a") == 0
    assert 0 < attempts.begin("ann", "a") <= WINDOW_SECONDS
    assert attempts.begin("ann", "b") == 0  # failures from elsewhere lock no other user out
    clock.advance(WINDOW_SECONDS)
    assert attempts.begin("ann", "a") == 0
    for number in range(PER_ADDRESS):
        assert attempts.begin(f"name {number}", "c") == 0
    assert attempts.begin("yet another", "c") > 0
    clock.advance(WINDOW_SECONDS)
    for number in range(500):  # W3: failures from anywhere else do not lock the owner out
        attempts.begin("ann", f"elsewhere {number}")
    assert attempts.begin("ann", "home") == 0
    for number in range(PER_NAME_AND_ADDRESS):
        assert attempts.begin("bo", f"2001:db8::{number:x}") == 0
    assert attempts.begin("bo", "2001:db8::ffff") > 0  # the same subscriber
    assert attempts.begin("bo", "2001:db8:0:1::1") == 0
    clock.advance(WINDOW_SECONDS)
    for _ in range(PER_NAME_AND_ADDRESS * 2):
        assert attempts.begin("ann", "a") == 0
        attempts.succeeded("ann", "a")
    for number in range(11_000):
        attempts.begin(f"name {number}", f"address {number}")
    assert len(attempts._failures) <= 10_000


def test_handles_are_bounded_and_end_with_their_session() -> None:
    handles = Handles()
    for number in range(6_000):
        handles.keep(b"one", str(number), "id")
    assert handles.id(b"one", "0") is None
    assert handles.id(b"one", "5999") == "id"
    assert handles.id(b"two", "5999") is None
    handles.drop(b"one")
    assert handles.id(b"one", "5999") is None


# --- the demo -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_demo_starts_and_stops_and_leaves_nothing(tmp_path: Path) -> None:
    port, api_port = free_port(), free_port()
    arguments = ["demo", "--port", str(port), "--api-port", str(api_port)]
    command = [sys.executable, "-m", "examples.operator_console", *arguments]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=demo.ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        name, role, password = re.findall(r"^    (\w+) +(\w+) +(\S{23})$", said, re.MULTILINE)[0]
        assert (name, role) == ("admin", "admin")
        transport = httpx.HTTPTransport(retries=8)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=10) as client:
            response = client.post("/sign-in", data={"name": name, "password": password})
            assert response.headers["location"] == "/"
            assert "Ada Lindqvist" in client.get("/tickets/7301").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
    for each in (port, api_port):
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{each}/ready")
    assert list(tmp_path.iterdir()) == []


# --- last: what the tests above left on disk --------------------------------------------------------------------------


def test_nothing_personal_and_no_key_is_in_what_the_console_wrote(console: RunningConsole) -> None:
    said = console.said()
    assert "The console listens on" in said
    assert console.key not in said
    for row in PEOPLE.values():
        for value in (row["customer_id"], row["email"], row["last_name"]):
            assert value not in said


def all_bytes(directory: Path) -> bytes:
    """Return all content of the console's directory, including the write-ahead log."""
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))
