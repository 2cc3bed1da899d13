"""Parser of Valkey's and Redis' replies (RESP2)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich.cache.shared.replies import IncompleteReply, Refused, read_reply

ANSWERS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.binary(max_size=40) | st.integers(-(2**63), 2**63 - 1), lambda inner: st.lists(inner, max_size=4)
)


def encoded(reply: Any) -> bytes:
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n%b" % (len(reply), b"".join(map(encoded, reply)))


@pytest.mark.long
@given(st.lists(ANSWERS, min_size=1, max_size=4))
def test_S2_answers_are_read_one_after_another(replies: list[Any]) -> None:
    data = b"".join(map(encoded, replies))
    read, position = [], 0
    while position < len(data):
        reply, position = read_reply(data, position)
        read.append(reply)
    assert read == replies


@given(ANSWERS)
def test_S2_an_answer_is_read_only_when_all_of_it_is_there(reply: Any) -> None:
    data = encoded(reply)
    for length in range(len(data)):
        with pytest.raises(IncompleteReply):
            read_reply(data[:length], 0)


def test_errors_and_words() -> None:
    assert read_reply(b"+OK\r\n", 0) == (b"OK", 5)
    assert read_reply(b"*-1\r\n", 0) == (None, 5)
    refused, position = read_reply(b"-ERR no such command\r\n", 0)
    assert isinstance(refused, Refused)
    assert (str(refused), position) == ("ERR no such command", 22)


@given(st.binary(max_size=60))
def test_S2_nothing_else_is_taken_for_an_answer(data: bytes) -> None:
    try:
        _, position = read_reply(data, 0)
    except (IncompleteReply, ValueError):
        return
    assert data[:1] in b"+-:$*"
    assert 0 < position <= len(data)
