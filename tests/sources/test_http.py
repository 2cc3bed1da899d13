"""Shared behaviour of HTTP sources: URLs, JSON, caching headers, statuses, quoted vendor messages."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich._utils.deadline import Deadline
from profile_enrich._utils.log_once import LogOnce
from profile_enrich.errors import (
    ConfigurationError,
    InvalidKeyError,
    SourceAuthError,
    SourceError,
    SourceRateLimited,
    SourceRequestError,
    SourceResponseError,
    SourceUnavailable,
)
from profile_enrich.sources.base import Freshness, Validators
from profile_enrich.sources.http import Headers, HttpRequest, HttpResponse
from profile_enrich.sources.http import vendor_api as _http
from profile_enrich.sources.http.caching_headers import conditional_headers, freshness, http_date, retry_after
from profile_enrich.sources.http.json_body import array, decode_json, obj
from profile_enrich.sources.http.vendor_api import HttpApi, fingerprint
from profile_enrich.sources.record_from_json import make_record
from profile_enrich.sources.redactor import Redactor
from profile_enrich.sources.urls import check_base_url, check_header, check_timeout, path_segment, query_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def headers(**lines: str) -> Headers:
    return Headers([(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in lines.items()])


class Answers:
    """A transport that answers without network."""

    name = "answers"

    def __init__(self, *responses: HttpResponse) -> None:
        self.responses = list(responses)
        self.sent: list[HttpRequest] = []

    async def send(self, request: HttpRequest, *, deadline: Deadline) -> HttpResponse:
        self.sent.append(request)
        return self.responses.pop(0)

    async def aclose(self) -> None: ...


def response(status: int, body: object = b"", **lines: str) -> HttpResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status, headers(**lines), data)


# --- URLs -------------------------------------------------------------------------------------------------------------


@given(TEXT)
def test_any_text_is_one_query_value(value: str) -> None:
    parts = urlsplit(f"https://h/p?a=1&record_id={query_value(value)}")
    assert (parts.path, parts.fragment) == ("/p", "")
    assert parse_qsl(parts.query, keep_blank_values=True) == [("a", "1"), ("record_id", value)]


@given(TEXT.filter(lambda text: text not in ("", ".", "..")))
def test_any_text_is_one_path_segment(value: str) -> None:
    parts = urlsplit(f"https://h/profiles/{path_segment(value)}")
    assert (parts.query, parts.fragment) == ("", "")
    *_, last = parts.path.split("/")
    assert (parts.path.count("/"), unquote(last)) == (2, value)


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_dots_are_no_path_segment(value: str) -> None:
    with pytest.raises(InvalidKeyError):
        path_segment(value)


def test_what_is_not_text_is_no_key() -> None:
    with pytest.raises(InvalidKeyError, match="int"):
        query_value(5)  # type: ignore[arg-type]  # what an untyped caller may do
    with pytest.raises(InvalidKeyError, match="surrogate") as caught:
        query_value("planted\ud800")
    assert caught.value.__context__ is None
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("http://127.0.0.1:8000/api/v1", "http://127.0.0.1:8000/api/v1"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://api.localhost", "http://api.localhost"),
        ("HTTPS://H.example", "HTTPS://H.example"),
    ],
)
def test_good_base_urls(url: str, kept: str) -> None:
    assert check_base_url(url) == kept


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1/x",
        "api.example.com",
        "ftp://h/x",
        "https://",
        "https:///x",
        "https://h:99999999/",
        "https://h:x/",
        "https://user:pw@h/",
        "https://h/x?y=1",
        "https://h/x#y",
        "https://h/x?",
        "https://h/a/../b",
        "https://h/a b",
        "https://h/a\r\nX: y",
        "https://h\\@evil/",
        "https://hé/",
        "https://[::1/",
        "",
        None,
        5,
    ],
)
def test_bad_base_urls_name_the_argument(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_url"):
        check_base_url(url, argument="token_url")


def test_insecure_http_is_possible_when_asked_for() -> None:
    assert check_base_url("http://10.0.0.1/x", allow_insecure_http=True) == "http://10.0.0.1/x"


@pytest.mark.parametrize("value", ["", "a\n", "a\r\nX-Evil: 1", "a b", "a\0", "é", "\x7f", None, 5, b"x"])
def test_credentials_that_no_header_can_carry_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="api_key") as caught:
        check_header(value, "api_key")
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "5", None])
def test_a_timeout_is_a_positive_number(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        check_timeout(seconds)
    assert check_timeout(2) == 2


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"<html>planted</html>", "not JSON"),
        (b'{"planted": "tru', "not JSON"),
        (b'{"planted": NaN}', "not JSON"),
        (b'{"planted": -Infinity}', "not JSON"),
        (b'{"planted": 1e999}', "not JSON: a number is too large"),
        (b'{"planted": 1, "planted": 2}', "not JSON: a name occurs twice"),
        (b'{"planted": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"planted": "\xff"}', "UTF-8"),
        (b'{"planted": "\\ud800"}', "UTF-8"),
        (b'{"planted": "x\\uDFFFy"}', "UTF-8"),
        ('{"planted": 1}'.encode("utf-16"), "UTF-8"),
        (b"[" * 200_000, "deeply"),
    ],
)
def test_bodies_that_are_not_good_json_are_refused_and_not_quoted(body: bytes, says: str) -> None:
    with pytest.raises(SourceResponseError, match=says) as caught:
        decode_json(body)
    assert caught.value.__context__ is None
    assert "planted" not in str(caught.value)


def test_good_json_is_read() -> None:
    assert decode_json(b'\xef\xbb\xbf{"a": 1.5}') == {"a": 1.5}
    assert decode_json(b'"\\ud83e\\udd8a"') == "🦊"
    assert decode_json(b"9080350317581165000") == 9080350317581165000


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_an_error_of_ours(body: bytes) -> None:
    with contextlib.suppress(SourceResponseError):
        json.dumps(decode_json(body), ensure_ascii=False, allow_nan=False).encode()


def test_shapes_are_checked() -> None:
    assert (obj({"a": 1}, "x"), array([1], "x")) == ({"a": 1}, [1])
    for check in (obj, array):
        with pytest.raises(SourceResponseError, match="data is not an"):
            check("text", "data")
    deep: Any = 1
    for _ in range(80):
        deep = {"a": deep}
    with pytest.raises(SourceResponseError, match="deeply") as caught:
        make_record(deep, id="u1", source="x")
    assert caught.value.__context__ is None


# --- caching ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({}, Freshness()),
        ({"cache_control": "max-age=60"}, Freshness(60.0)),
        ({"cache_control": 'MAX-AGE = "60" , private'}, Freshness(60.0)),
        ({"cache_control": "max-age=60", "age": "15"}, Freshness(45.0)),
        ({"cache_control": "max-age=60", "age": "999"}, Freshness(0.0)),
        ({"cache_control": "max-age=60", "age": "nonsense"}, Freshness(60.0)),
        ({"cache_control": "max-age=60", "age": "10, 20"}, Freshness(50.0)),
        ({"cache_control": "max-age=60, max-age=30"}, Freshness(30.0)),
        ({"cache_control": "max-age=-1"}, Freshness(0.0)),
        ({"cache_control": "max-age=soon"}, Freshness(0.0)),
        ({"cache_control": "max-age"}, Freshness(0.0)),
        ({"cache_control": "max-age=" + "9" * 30}, Freshness(2.0**31)),
        ({"cache_control": "no-cache, max-age=60"}, Freshness(0.0)),
        ({"cache_control": "no-store"}, Freshness(None, no_store=True)),
        ({"cache_control": "s-maxage=60, public"}, Freshness()),
        ({"cache_control": '???, =, x="a, no-store", max-age=5'}, Freshness(5.0)),
        ({"cache_control": '"unterminated, no-store'}, Freshness(None, no_store=True)),
        ({"etag": '"abc"'}, Freshness(validators=Validators('"abc"'))),
        ({"etag": 'W/"abc"'}, Freshness(validators=Validators('W/"abc"'))),
        ({"etag": "abc"}, Freshness()),
        ({"etag": '"a", "b"'}, Freshness()),
        ({"etag": '"' + "x" * 2000 + '"'}, Freshness()),
        (
            {"last_modified": "Sun, 06 Nov 1994 08:49:37 GMT"},
            Freshness(validators=Validators(None, "Sun, 06 Nov 1994 08:49:37 GMT")),
        ),
        ({"last_modified": "yesterday"}, Freshness()),
    ],
)
def test_L7_how_long_an_answer_may_be_kept(lines: dict[str, str], expected: Freshness) -> None:
    assert freshness(headers(**lines)) == expected


@given(st.text(st.characters(max_codepoint=255)))
def test_L7_any_cache_control_is_understood_or_left_aside(value: str) -> None:
    got = freshness(headers(cache_control=value, age=value, etag=value, last_modified=value))
    assert got.max_age is None or 0 <= got.max_age <= 2**31


def test_conditional_requests() -> None:
    modified = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert conditional_headers(None) == {}
    assert conditional_headers(Validators()) == {}
    assert conditional_headers(Validators('"a"', modified)) == {"if-none-match": '"a"'}
    assert conditional_headers(Validators(None, modified)) == {"if-modified-since": modified}


def test_retry_after_is_seconds_or_a_date() -> None:
    now = time.time()
    assert retry_after(headers(retry_after="7")) == 7.0
    assert retry_after(headers(retry_after="9" * 40)) == 2.0**31
    assert retry_after(headers()) is None
    assert retry_after(headers(retry_after="soon")) is None
    assert retry_after(headers(retry_after="-5")) is None
    assert retry_after(headers(retry_after="é")) is None
    ahead = formatdate(now + 3600 + 30, usegmt=True)  # the vendor's clock is an hour ahead
    assert retry_after(headers(retry_after=ahead, date=formatdate(now + 3600, usegmt=True))) == pytest.approx(30, abs=1)
    soon = retry_after(headers(retry_after=formatdate(now + 30, usegmt=True)))
    assert soon is not None
    assert 25 < soon <= 30
    assert retry_after(headers(retry_after=formatdate(now - 30, usegmt=True))) == 0.0
    assert http_date("Sun, 06 Nov 99999999 08:49:37 GMT") is None


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, SourceAuthError),
        (403, SourceAuthError),
        (429, SourceRateLimited),
        (400, SourceRequestError),
        (405, SourceRequestError),
        (404, SourceRequestError),
        (500, SourceUnavailable),
        (503, SourceUnavailable),
        (599, SourceUnavailable),
        (204, SourceResponseError),
        (301, SourceResponseError),
        (304, SourceResponseError),
        (999, SourceUnavailable),
    ],
)
async def test_what_statuses_mean(status: int, kind: type[SourceError]) -> None:
    envelope = {"message": "The thing is broken.", "request_id": "req-1"}
    api = HttpApi("vendor", "https://h.example", Answers(response(status, envelope, retry_after="3")))
    with pytest.raises(SourceError) as caught:
        await api.get("/x", deadline=Deadline(1), headers={})
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.request_id, caught.value.retry_after) == (status, "req-1", 3.0)
    assert "vendor" in str(caught.value)
    assert "The thing is broken." in str(caught.value)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"error": {"code": "not_found", "message": "No such entity."}}, "No such entity."),
        ({"error": {"code": "not_found"}}, "not_found"),
        ({"error": "invalid_client", "error_description": "Unknown client."}, "Unknown client."),
        ({"error": "invalid_client"}, "invalid_client"),
        (["x"], "refused the request"),
        (b"<html>", "refused the request"),
        (b'{"message": "' + b"x" * 100_000 + b'"}', "refused the request"),
        ({"message": 5}, "refused the request"),
        ({"message": "line\nbreak\x1b[31m"}, "line break [31m"),
        ({"message": "No user alice@example.com here"}, "refused the request"),
        ({"message": "No user ALICE%40example.com"}, "refused the request"),
        ({"message": "No user alice&#64;exa…"}, "refused the request"),
        ({"message": "Bad key s3cr3t-k3y"}, "refused the request"),
    ],
)
async def test_A18_a_vendors_message_is_shown_unless_it_repeats_the_key(body: object, shown: str) -> None:
    api = HttpApi("vendor", "https://h.example", Answers(response(400, body)), secrets=["s3cr3t-k3y"])
    with pytest.raises(SourceRequestError) as caught:
        await api.get("/x", deadline=Deadline(1), headers={}, private=["alice@example.com"])
    assert caught.value.message.endswith(shown)
    assert len(str(caught.value)) < 300


async def test_request_ids_come_from_headers_too() -> None:
    for lines, expected in (
        ({"x_request_id": "abc-1"}, "abc-1"),
        ({"request_id": "abc-2"}, "abc-2"),
        ({"x_request_id": "has space"}, None),
        ({"x_request_id": "for-alice-example"}, None),
        ({}, None),
    ):
        api = HttpApi("vendor", "https://h.example", Answers(response(500, b"", **lines)))
        with pytest.raises(SourceUnavailable) as caught:
            await api.get("/x", deadline=Deadline(1), headers={}, private=["alice@example"])
        assert caught.value.request_id == expected


@given(TEXT.filter(bool), st.text(max_size=20), st.text(max_size=20))
def test_A18_no_message_repeats_a_needle(needle: str, before: str, after: str) -> None:
    needles = Redactor([needle])
    for form in (needle, quote(needle, safe=""), needle.upper()):
        shown = needles.shown(before + form + after)
        assert shown is None or needle not in shown


def test_a_long_message_is_cut() -> None:
    shown = Redactor([]).shown("word " * 100)
    assert shown is not None
    assert (len(shown), shown[-1]) == (200, "…")
    assert Redactor(["?!"]).shown("what?!") is None
    assert Redactor(["?!"]).shown("what") == "what"
    assert Redactor([""]).shown("   ") is None


async def test_deprecation_is_said_once_per_process_and_source(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "_once", LogOnce())
    gone = {"deprecation": "@1735689599", "sunset": "Sun, 06 Nov 2033 08:49:37 GMT"}
    odd = {"sunset": "planted nonsense"}
    ok = [response(200, b"{}", **gone), response(200, b"{}", **gone), response(404, b"{}", **gone)]
    one = HttpApi("one", "https://h.example", Answers(*ok))
    two = HttpApi("two", "https://h.example", Answers(response(200, b"{}", **odd)))
    with caplog.at_level(logging.WARNING, "profile_enrich.sources"):
        for _ in range(3):
            await one.get("/x", deadline=Deadline(1), headers={}, accept=(200, 404))
        await two.get("/x", deadline=Deadline(1), headers={})
    assert [record.getMessage() for record in caplog.records] == [
        "one announces that this version of its API will end (deprecation @1735689599, sunset "
        "Sun, 06 Nov 2033 08:49:37 GMT); see its changelog",
        "two announces that this version of its API will end; see its changelog",
    ]


async def test_what_every_request_carries() -> None:
    transport = Answers(response(304), response(201, b"{}"))
    api = HttpApi("vendor", "https://h.example/v1", transport)
    got = await api.get("/x", deadline=Deadline(1), headers={"a": "b"}, validators=Validators('"e"'))
    assert got.status == 304
    await api.post("/y", b"body", deadline=Deadline(1), headers={}, accept=(201,))
    first, second = transport.sent
    assert (first.method, first.url, second.method, second.url) == (
        "GET",
        "https://h.example/v1/x",
        "POST",
        "https://h.example/v1/y",
    )
    assert first.headers["user-agent"].startswith("profile-enrich/")
    assert (first.headers["if-none-match"], first.headers["a"], second.body) == ('"e"', "b", b"body")
    assert repr(api) == "<HttpApi vendor at https://h.example/v1>"


def test_fingerprints_tell_keys_apart_and_nothing_else() -> None:
    assert fingerprint("a") == fingerprint("a") != fingerprint("b")
    assert len(fingerprint("a")) == 16
