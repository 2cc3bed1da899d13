"""Each line of the contract has a test that names it."""

from __future__ import annotations

import pytest

from tools.contract import ELSEWHERE, LINES, PAGE, page, proofs


@pytest.mark.parametrize("line", [line for line in LINES if line not in ELSEWHERE])
def test_each_line_has_a_test_that_names_it(line: str) -> None:
    assert proofs()[line], f"no test has {line}_ in its name"


def test_no_test_names_a_line_that_does_not_exist() -> None:
    assert set(proofs()) == set(LINES)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.contract"
