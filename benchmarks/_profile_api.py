"""The embedded Profile API in processes of its own: says its port, and ends when its input does."""

from __future__ import annotations

import os
import signal
import sys
import threading

from profile_enrich.server import ApiKey, serve
from profile_enrich.store.postgres import PostgresStore

from ._child import say

SECRET = "the-key-of-the-benchmark"


def main(where: str, workers: int) -> None:
    def leave_with_parent() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    def ready(url: str) -> None:
        threading.Thread(target=leave_with_parent, daemon=True).start()
        say({"port": int(url.rpartition(":")[2]), "pid": os.getpid()})

    store = PostgresStore(where) if where.startswith("postgresql://") else where
    serve(store, keys=[ApiKey.from_secret(SECRET)], port=0, workers=workers, on_ready=ready)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
