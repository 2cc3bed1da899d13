"""The client used from synchronous code."""

from __future__ import annotations

import asyncio
import threading

import pytest

from profile_enrich import InvalidKeyError, LookupDetails, Profile, SourceConnectionError, Status
from tests.helpers import ScriptedSource, Switch, client_of


def test_it_does_what_the_client_does() -> None:
    source = ScriptedSource(delay=0.001)
    before = threading.enumerate()
    with client_of(source).blocking() as people:
        assert people.get("u1").status is Status.MISS
        assert people.get("u1").status is Status.HIT
        assert people.lookup("u1").status is Status.HIT
        assert people.lookup("u2")["id"] == "u2"
        assert people.refresh("u1").status is Status.MISS
        assert list(people.get_many(["u1", "u3"])) == ["u1", "u3"]
        assert len(source.calls) == 4
    assert source.closed == 1
    assert not [each for each in threading.enumerate() if each.name == "profile_enrich" and each not in before]


def test_a_hit_needs_no_thread() -> None:
    client = client_of(ScriptedSource())
    asyncio.run(client.get("u1"))
    people = client.blocking()
    assert people.get("u1").status is Status.HIT
    assert people._thread is None
    people.close()


def test_errors_reach_the_caller() -> None:
    switch = Switch(SourceConnectionError("down"))
    with client_of(ScriptedSource(switch)).blocking() as people:
        with pytest.raises(SourceConnectionError):
            people.get("u1")
        with pytest.raises(InvalidKeyError):
            people.get("")
        assert people.lookup("u1").status is Status.ERROR
        people.close()
        switch.error = None
        assert people.get("u1").found, "it opens again"


def test_L9_many_threads_share_one_load_and_each_gets_its_own() -> None:
    """L9: the cache is safe under threads."""
    source = ScriptedSource(delay=0.01)
    wrong: list[Profile] = []
    barrier = threading.Barrier(16)

    with client_of(source).blocking() as people:

        def work(index: int) -> None:
            barrier.wait()
            for key in (f"u{index % 2}", f"own{index}"):
                profile = people.get(key)
                if profile["id"] != key:
                    wrong.append(profile)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(source.calls) == 2 + 16


def test_A9_after_a_fork_it_starts_anew() -> None:
    """A9: the loop's thread exists only in the parent."""
    with client_of(ScriptedSource()).blocking() as people:
        people.get("u1")
        loop, thread = people._loop, people._thread
        people.after_fork()
        assert people._thread is None
        assert people.get("u2").status is Status.MISS
        assert people._thread is not thread
    assert loop is not None
    assert thread is not None
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_hooks_are_called_on_the_loop_of_the_client_also_for_hits() -> None:
    threads: list[tuple[Status, bool]] = []

    def hook(details: object) -> None:
        if isinstance(details, LookupDetails):
            threads.append((details.status, threading.current_thread() is threading.main_thread()))

    with client_of(ScriptedSource(), hooks=[hook]).blocking() as people:
        people.get("u1")
        people.get("u1")
    assert threads == [(Status.MISS, False), (Status.HIT, False)]
