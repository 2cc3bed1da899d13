"""Stream slots of API keys, shared by all workers."""

from __future__ import annotations

import os
import signal

import pytest

from profile_enrich.server.cross_worker_state import Places, SharedState

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="several workers need fork")


def test_P8_places_are_counted_over_all_processes_and_those_of_a_dead_one_are_free() -> None:
    with SharedState.create(several=True) as shared:
        places = shared.streams
        own = places.take("key", 4)
        assert own is not None
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            taken = [places.take("key", 4) for _ in range(5)]
            os.write(writer, b"%d" % sum(place is not None for place in taken))
            signal.pause()
            os._exit(0)
        assert os.read(reader, 1) == b"3"
        assert places.take("key", 4) is None
        assert places.take("another key", 4) is not None
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert [places.take("key", 4) is not None for _ in range(4)] == [True, True, True, False]
        places.free(own)
        assert places.take("key", 4) == own
        os.close(reader)
        os.close(writer)


def test_P8_alone_a_process_counts_its_own_places() -> None:
    places = Places()
    taken = [places.take("key", 2) for _ in range(3)]
    assert taken[2] is None
    assert taken[0] is not None
    places.free(taken[0])
    assert places.take("key", 2) == taken[0]
