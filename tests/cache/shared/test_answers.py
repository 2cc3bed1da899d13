"""Parser of Valkey's and Redis' replies (RESP2)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich.cache.shared.answers import IncompleteAnswer, Refused, read_answer

ANSWERS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.binary(max_size=40) | st.integers(-(2**63), 2**63 - 1), lambda inner: st.lists(inner, max_size=4)
)


def encoded(answer: Any) -> bytes:
    if answer is None:
        return b"$-1\r\n"
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, bytes):
        return b"$%d\r\n%b\r\n" % (len(answer), answer)
    return b"*%d\r\n%b" % (len(answer), b"".join(map(encoded, answer)))


@pytest.mark.long
@given(st.lists(ANSWERS, min_size=1, max_size=4))
def test_S2_answers_are_read_one_after_another(answers: list[Any]) -> None:
    data = b"".join(map(encoded, answers))
    read, position = [], 0
    while position < len(data):
        answer, position = read_answer(data, position)
        read.append(answer)
    assert read == answers


@given(ANSWERS)
def test_S2_an_answer_is_read_only_when_all_of_it_is_there(answer: Any) -> None:
    data = encoded(answer)
    for length in range(len(data)):
        with pytest.raises(IncompleteAnswer):
            read_answer(data[:length], 0)


def test_errors_and_words() -> None:
    assert read_answer(b"+OK\r\n", 0) == (b"OK", 5)
    assert read_answer(b"*-1\r\n", 0) == (None, 5)
    refused, position = read_answer(b"-ERR no such command\r\n", 0)
    assert isinstance(refused, Refused)
    assert (str(refused), position) == ("ERR no such command", 22)


@given(st.binary(max_size=60))
def test_S2_nothing_else_is_taken_for_an_answer(data: bytes) -> None:
    try:
        _, position = read_answer(data, 0)
    except (IncompleteAnswer, ValueError):
        return
    assert data[:1] in b"+-:$*"
    assert 0 < position <= len(data)
