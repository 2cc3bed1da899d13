"""Forks that bypass Python's fork hooks."""

from __future__ import annotations

import threading
import time

import pytest

from profile_enrich._utils import fork


class Slow:
    """An object that is slow to reset."""

    def __init__(self) -> None:
        self.resets = 0

    def after_fork(self) -> None:
        time.sleep(0.1)
        self.resets += 1


def test_A9_no_thread_goes_on_before_all_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    thing = Slow()
    monkeypatch.setattr(fork, "_registered", {thing})
    monkeypatch.setattr(fork, "_process", [-1])
    seen: list[int] = []

    def visit() -> None:
        fork.notice_fork()
        seen.append(thing.resets)

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1, 1, 1]
