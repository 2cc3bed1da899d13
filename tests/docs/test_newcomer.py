"""Typical first mistakes: each message names the cause and the remedy, and the page quotes the real messages."""

from __future__ import annotations

import re

import pytest

from tools.newcomer import KEY, PAGE, messages, page


@pytest.fixture(scope="module")
def seen() -> dict[str, list[str]]:
    return messages()


CAUSES = {
    "A wrong key": r"refused the credentials.*401.*Copy the workspace's key again",
    "A wrong entity": r"users is not there; the key sees Users.*Did you mean Users\?",
    "The clock is off": r"17 minutes ahead.*Set the clock",
    "No network": r"refused; check that it runs.*Check --base-url",
    "The vendor is slow or hangs": r"did not answer within 0\.2 s",
    "An id of another type": r"must be a string, not int; pass str\(value\).*must return a string",
    "The middleware in the wrong order": r"put SessionMiddleware before it",
    "`SessionMiddleware` is missing": r"put SessionMiddleware before it",
    "A custom identity function that needs a session": r"the identity function raised AssertionError",
    "`ProfileMiddleware` is missing": r"add ProfileMiddleware to the application",
    "Read before it was looked up": r"get it with `await get_profile\(request\)`",
    "Two event loops": r"belongs to another event loop; without it, each loop gets one of its own",
    "A WSGI application": r"a WSGI one.*use profile_enrich.flask.*WSGIProfileMiddleware",
    "An extra is missing": r"pip install 'profile-enrich\[session\]'",
}


@pytest.mark.parametrize("title", CAUSES)
def test_A10_what_is_seen_names_the_cause_and_the_next_step(title: str, seen: dict[str, list[str]]) -> None:
    """A10: the page is served each time, and the mistake is logged once."""
    assert re.search(CAUSES[title], " ".join(seen[title])), seen[title]
    logged = [line for line in seen[title] if " profile_enrich: " in line]
    assert len(logged) == len(set(logged))


def test_A18_none_of_it_shows_a_secret_or_a_person(seen: dict[str, list[str]]) -> None:
    """A18: messages contain no keys, ids or values."""
    text = repr(seen)
    for private in (KEY, "4242", "another-key", "u1", "478060", "Ada"):
        assert private not in text


def test_each_has_its_place_on_the_page(seen: dict[str, list[str]]) -> None:
    assert set(CAUSES) == set(seen)
    assert PAGE.read_text(encoding="utf-8") == page(seen), "run: python -m tools.newcomer"
