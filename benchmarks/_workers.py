"""uvicorn with several workers on a free port: says its port, and ends when its input does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import threading
import time

import uvicorn

from ._child import say

__all__ = ["serve_workers"]


def serve_workers(factory: str, workers: int, *, settle: float) -> None:
    """Serve the application that a factory makes in each worker.

    Args:
        factory: its module and name, as uvicorn takes it.
        workers: how many processes.
        settle: seconds after the first connection until it says its port; other workers start meanwhile.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])

    def greet_and_wait() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        time.sleep(settle)
        say({"port": port, "pid": os.getpid()})
        while os.read(0, 1):
            pass
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(0)

    threading.Thread(target=greet_and_wait, daemon=True).start()
    uvicorn.run(
        factory,
        factory=True,
        port=port,
        workers=workers,
        log_level="error",
        access_log=False,
        timeout_keep_alive=600,  # a connection that is closed just as it is used again would count as a failure
    )
