"""Server-sent events: the standard's own examples, and any cut of any stream."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich.errors import SourceResponseError
from profile_enrich.sources.http.server_sent_events import EventReader


def read(*chunks: bytes) -> list[tuple[str, str, str]]:
    reader = EventReader()
    return [(event.name, event.data, event.id) for chunk in chunks for event in reader.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [("message", "test", ""), ("message", "test", "")]),
        (b"event: add\r\ndata: 1\r\n\r\nevent: add\rdata: 2\r\r", [("add", "1", ""), ("add", "2", "")]),
        (b"\xef\xbb\xbfdata: 1\n\n", [("message", "1", "")]),
        (b"id: a\0b\ndata: 1\n\n", [("message", "1", "")]),
        (b"event: lost\n\ndata: 1\n\n", [("message", "1", "")]),
        ("data: a\u2028b\n\n".encode(), [("message", "a\u2028b", "")]),
    ],
)
def test_streams_of_the_standard(stream: bytes, events: list[tuple[str, str, str]]) -> None:
    assert read(stream) == events


@given(
    st.lists(
        st.sampled_from([b"data: 1", b"id: 7", b"event: x", b"\n", b"\r\n", b"\r", b":", b"\xef\xbb\xbf", "é".encode()])
    ),
    st.lists(st.integers(0, 60)),
)
def test_however_the_stream_is_cut_the_events_are_the_same(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert read(*chunks) == read(stream)


def test_the_server_says_how_long_to_wait() -> None:
    reader = EventReader()
    assert list(reader.feed(b"retry: soon\nretry: 1500\n\n")) == []
    assert reader.retry == 1.5


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 200, b"data: xxxxxxxx\n" * 20])
def test_memory_is_bounded(stream: bytes) -> None:
    with pytest.raises(SourceResponseError, match="too long"):
        list(EventReader(limit=100).feed(stream))
