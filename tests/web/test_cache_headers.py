"""Cache headers of personalised responses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich.web.cache_headers import is_plain, personal_lines, personalise

COOKIE = ("Cookie",)


def changed(*headers: tuple[str, str], vary_on: tuple[str, ...] = COOKIE) -> tuple[list[tuple[str, str]], bool]:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    result, invited = personalise(raw, vary_on)
    return [(name.decode(), value.decode()) for name, value in result], invited


def values(headers: list[tuple[str, str]], name: str) -> list[str]:
    return [value for key, value in headers if key.lower() == name]


class TestVary:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([], ["Cookie"]),
            (["Accept-Encoding"], ["Accept-Encoding, Cookie"]),
            (["cookie"], ["cookie"]),
            (["Accept, COOKIE"], ["Accept, COOKIE"]),
            (["*"], ["*"]),
            (["Accept", "*"], ["Accept", "*"]),
            (["Accept", "Origin"], ["Accept", "Origin, Cookie"]),
            (["Cookie", "Origin"], ["Cookie", "Origin"]),
            ([""], ["Cookie"]),
            (["Accept,"], ["Accept, Cookie"]),
            ([" , "], ["Cookie"]),
            (["X"], ["X, Cookie"]),
            (["DeviceX ,"], ["DeviceX , Cookie"]),
            (["Cookie,Accept"], ["Cookie,Accept"]),
        ],
    )
    def test_A14_vary_is_merged(self, before: list[str], after: list[str]) -> None:
        """A14: case-insensitive, no duplicates, `*` stays `*`, several lines kept."""
        headers, _ = changed(*[("vary", value) for value in before])
        assert values(headers, "vary") == after

    def test_A13_each_header_of_the_identity_is_named_once(self) -> None:
        """A13: … or the header that identity came from."""
        headers, _ = changed(("Vary", "authorization"), vary_on=("Authorization", "Cookie", "cookie"))
        assert headers[0] == ("Vary", "authorization, Cookie")
        headers, _ = changed(vary_on=("Authorization", "Cookie"))
        assert values(headers, "vary") == ["Authorization, Cookie"]


class TestCacheControl:
    @pytest.mark.parametrize(
        ("before", "after", "invited"),
        [
            ([], ["private"], False),
            (["private"], ["private"], False),
            (["no-store"], ["no-store"], False),
            (["Private, max-age=0"], ["Private, max-age=0"], False),
            (["max-age=60"], ["private, max-age=60"], False),
            (["no-cache"], ["private, no-cache"], False),
            (["public"], ["private"], True),
            (["public, max-age=60, s-maxage=600"], ["private, max-age=60"], True),
            (["PUBLIC , max-age=60"], ["private, max-age=60"], True),
            (["s-maxage=600"], ["private"], True),
            (['s-maxage="600", max-age=1'], ["private, max-age=1"], True),
            (["no-store, public"], ["no-store"], True),
            (["private, s-maxage=1"], ["private"], True),
            (['private="set-cookie", max-age=1'], ["private, max-age=1"], False),
            (['no-cache="a, public", max-age=1'], ['private, no-cache="a, public", max-age=1'], False),
            (["max-age=60", "public"], ["private, max-age=60"], True),
            (["public", "no-store"], ["no-store"], True),
            ([""], ["private"], False),
            (["max-age=60, stale-while-revalidate=5"], ["private, max-age=60, stale-while-revalidate=5"], False),
            (["max-age=60 , must-revalidate , public"], ["private, max-age=60, must-revalidate"], True),
            (["group=MAX, public"], ["private, group=MAX"], True),
            (["private ,max-age=0"], ["private ,max-age=0"], False),
        ],
    )
    def test_A14_shared_caches_are_kept_out(self, before: list[str], after: list[str], invited: bool) -> None:
        """A14: an existing `no-store`/`private` is kept; `public`/`s-maxage` becomes `private`, with a warning."""
        headers, said = changed(*[("Cache-Control", value) for value in before])
        assert values(headers, "cache-control") == after
        assert said is invited

    @pytest.mark.parametrize("name", ["CDN-Cache-Control", "Surrogate-Control", "Cloudflare-CDN-Cache-Control"])
    def test_A14_what_is_meant_for_a_cdn_goes(self, name: str) -> None:
        """A14: RFC 9213: targeted fields win over `Cache-Control`."""
        headers, invited = changed((name, "max-age=600"), ("Content-Type", "text/html"))
        assert headers[0] == ("Content-Type", "text/html")
        assert len(headers) == 3
        assert invited

    @pytest.mark.parametrize("value", ["no-store", "max-age=0, No-Store"])
    def test_A14_what_keeps_a_cdn_out_stays(self, value: str) -> None:
        """A14: an existing `no-store` is kept without a warning."""
        headers, invited = changed(("CDN-Cache-Control", value))
        assert values(headers, "cdn-cache-control") == [value]
        assert values(headers, "cache-control") == ["private"]
        assert not invited

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"content-type", b"Content-Type", b"set-cookie", b"vary", b"cache-control", b"x"]),
                st.sampled_from([b"", b"public", b"a"]),
            )
        ),
        st.sampled_from([(), COOKIE, ("Cookie", "cookie", "Authorization")]),
    )
    def test_A14_the_short_way_of_plain_headers_is_no_other_way(
        self, headers: list[tuple[bytes, bytes]], vary_on: tuple[str, ...]
    ) -> None:
        """A14: the fast path for common headers gives the same result."""
        if is_plain(headers):
            assert (headers + personal_lines(vary_on), False) == personalise(headers, vary_on)

    def test_A14_a_plain_response_gets_both_lines(self) -> None:
        """A14: the response has no such header yet."""
        plain = [(b"content-type", b"text/html"), (b"content-length", b"5")]
        assert personalise(iter(plain), COOKIE) == (
            [*plain, (b"cache-control", b"private"), (b"vary", b"Cookie")],
            False,
        )
        assert personalise(plain, ()) == ([*plain, (b"cache-control", b"private")], False)
        assert personalise(plain, ("Cookie", "cookie", "Authorization")) == (
            [*plain, (b"cache-control", b"private"), (b"vary", b"Cookie, Authorization")],
            False,
        )

    @pytest.mark.parametrize("value", ["a" * 100_000 + " b", "a" + " " * 100_000 + "b", 'a="' * 30_000])
    def test_a_long_malformed_value_is_passed_on_without_delay(self, value: str) -> None:
        """A backtracking parser would take minutes."""
        headers, invited = changed(("Cache-Control", value))
        assert (values(headers, "cache-control"), invited) == ([f"private, {value}"], False)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"cache-control", b"vary", b"x-other", b"CDN-Cache-Control"]),
                st.text('abc,=" *\t-0123456789\\', max_size=30).map(str.encode)
                | st.sampled_from([b"public", b"s-maxage=1", b"private", b"no-store", b"*"]),
            ),
            max_size=5,
        )
    )
    def test_A14_whatever_it_said_before_it_is_private_now(self, headers: list[tuple[bytes, bytes]]) -> None:
        """A14: idempotent for any header values."""
        result, _ = personalise(headers, COOKIE)
        control = b",".join(value for name, value in result if name == b"cache-control").lower()
        assert b"private" in control or b"no-store" in control
        assert [header for header in result if header[0] == b"x-other"] == [
            header for header in headers if header[0] == b"x-other"
        ]
        vary = b",".join(value for name, value in result if name == b"vary").lower()
        assert b"cookie" in vary or b"*" in vary
        assert personalise(result, COOKIE) == (result, False)


@pytest.mark.parametrize("value", ["Thu, 01 Jan 2099 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "0", "-1", "soon"])
def test_A14_expires_lies_in_the_past(value: str) -> None:
    """A14: Akamai can be set to honour only this field, and HTTP/1.0 caches support no other."""
    headers, invited = personalise([(b"Expires", value.encode()), (b"cache-control", b"max-age=60")], ["Cookie"])
    assert headers == [(b"Expires", b"0"), (b"cache-control", b"private, max-age=60"), (b"vary", b"Cookie")]
    assert not invited


TARGETED = {
    "x-accel-expires": ["60", "@1790000000", "off"],
    "surrogate-control": ["max-age=60", 'content="ESI/1.0"'],
    "edge-control": ["cache-maxage=60s", "!no-store, max-age=1d"],
    "cdn-cache-control": ["max-age=60", "public"],
    "cloudflare-cdn-cache-control": ["max-age=60"],
    "vercel-cdn-cache-control": ["s-maxage=60"],
    "netlify-cdn-cache-control": ["public, durable, s-maxage=60"],
    "akamai-cache-control": ["max-age=60"],
    "x-litespeed-cache-control": ["public,max-age=60"],
    "x-ec-cache-control": ["max-age=60"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, them in TARGETED.items() for value in them])
def test_A14_every_field_that_invites_a_shared_cache_goes(name: str, value: str) -> None:
    for spelled in (name, name.title(), name.upper()):
        headers, invited = personalise([(spelled.encode(), value.encode())], ["Cookie"])
        assert headers == [(b"cache-control", b"private"), (b"vary", b"Cookie")]
        assert invited


@pytest.mark.parametrize("name", TARGETED)
def test_A14_a_field_that_keeps_a_shared_cache_out_stays(name: str) -> None:
    value = b"0" if name == "x-accel-expires" else b"no-store"
    headers, invited = personalise([(name.encode(), value)], ["Cookie"])
    assert (name.encode(), value) in headers
    assert not invited
