"""The exception tree."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from profile_enrich import errors
from profile_enrich.errors import MissingExtraError, ProfileEnrichError, ProfileRequired, SourceRateLimited

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, ProfileEnrichError)]


def test_each_class_has_a_code_of_its_own() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes) == len(errors.__all__)


def test_the_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__
    for cls in CLASSES:
        assert cls.__name__ in errors.__doc__
        assert cls is ProfileEnrichError or cls.code in errors.__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_each_can_be_copied_and_pickled(cls: type[ProfileEnrichError]) -> None:
    error = cls("what happened")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is cls
        assert twin.message == error.message


def test_a_source_error_carries_what_support_asks_for() -> None:
    error = copy.copy(SourceRateLimited("too many requests", status=429, request_id="r-1", retry_after=2.0))
    assert str(error) == "too many requests (status 429, request id r-1)"
    assert (error.status, error.request_id, error.retry_after) == (429, "r-1", 2.0)


def test_a_missing_extra_names_the_remedy() -> None:
    assert "pip install 'profile-enrich[aiohttp]'" in str(MissingExtraError("the aiohttp transport", "aiohttp"))


def test_profile_required_is_an_http_exception() -> None:
    error = copy.copy(ProfileRequired("There is no profile.", status_code=404, reason="not_found"))
    assert (error.status_code, error.detail, error.reason) == (404, "There is no profile.", "not_found")
    assert str(error) == "404: There is no profile."
