"""Checks of arguments that are numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from profile_enrich._utils.validation import check_int, check_number, is_int, is_number
from profile_enrich.errors import ConfigurationError
from profile_enrich.store import CollectionSpec, RefreshSpec, build_store, refresh_store


def test_a_bool_is_no_number_and_a_float_is_no_integer() -> None:
    assert [is_int(value) for value in (1, True, 1.0, "1", None)] == [True, False, False, False, False]
    assert [is_number(value) for value in (1, True, 1.0, "1", None)] == [True, False, True, False, False]


@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, -math.inf, -0.1, 2.1])
def test_a_number_out_of_bounds_is_refused_with_both_bounds(value: object) -> None:
    expected = f"share must be a number of parts, 0 or more and at most 2, not {value!r}"
    with pytest.raises(ConfigurationError, match=f"^{re.escape(expected)}$"):
        check_number("share", value, most=2, unit="parts")
    assert [check_number("share", edge, most=2) for edge in (0, 2)] == [0.0, 2.0]


def test_zero_is_refused_where_a_number_must_be_positive() -> None:
    with pytest.raises(ConfigurationError, match=r"^every must be a number of seconds, above 0, not 0$"):
        check_number("every", 0, positive=True)
    assert check_number("every", 1e-9, positive=True) == 1e-9


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, 4])
def test_an_integer_out_of_bounds_is_refused_with_both_bounds(value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^port must be a whole number from 0 to 3, not {value!r}$"):
        check_int("port", value, least=0, most=3)
    assert [check_int("port", edge, least=0, most=3) for edge in (0, 3)] == [0, 3]


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, True])
def test_a_share_that_cannot_be_meant_stops_a_build_before_it_writes(share: float, tmp_path: Path) -> None:
    source = tmp_path / "people.csv"
    source.write_text("id,name\n1,Ann\n")
    spec = CollectionSpec("people", source, key="id")
    with pytest.raises(ConfigurationError, match="max_shrink must be a number"):
        build_store(tmp_path / "store", [spec], max_shrink=share)
    assert not (tmp_path / "store").exists()
    build_store(tmp_path / "store", [spec])
    with pytest.raises(ConfigurationError, match="max_shrink must be a number"):
        refresh_store(tmp_path / "store", [RefreshSpec("people", source)], max_shrink=share)
