"""A program that forks while it has a client: before it was used, after, and while it is loading.

`python -m tests.apps.forking SCENARIO` prints one JSON object a line. Its environment configures it, as `served.py` is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from profile_enrich import CensusSource, ProfileClient, ProfileMiddleware, from_session
from tests.apps.stage import Stage
from tests.apps.starlette_app import create


def make_client() -> ProfileClient:
    return ProfileClient(
        CensusSource(
            api_key="secret",
            entity="Users",
            base_url=os.environ["VENDOR_URL"],
            transport=os.environ["TRANSPORT"],  # type: ignore[arg-type]  # one of the names, or it refuses
        ),
        ttl=600,
    )


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop of the kind that `LOOP` names."""
    if os.environ["LOOP"] == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def say(**facts: object) -> None:
    """One write, so that lines of two processes do not mix."""
    os.write(1, (json.dumps({"pid": os.getpid(), **facts}) + "\n").encode())


def in_child(work: Callable[[], None], *, leave: Callable[[int], None] = sys.exit) -> int:
    """Fork; the child does its work and exits. Return the child's process id to the parent."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stderr.flush()
        leave(code)
    raise AssertionError("unreachable")


def wait_for(*pids: int) -> None:
    for pid in pids:
        say(child=pid, code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


async def look_up(client: ProfileClient, *keys: str, close: bool = True) -> None:
    for key in keys:
        profile = await client.lookup(key)
        say(key=key, tier=profile.get("tier"), status=profile.status)
    if close:
        await client.aclose()


def open_things() -> tuple[list[str], int]:
    """Return the descriptors and threads of this process."""
    entries = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return sorted(str(entry.readlink()) for entry in entries if entry.exists()), threading.active_count()


def nothing_before() -> None:
    """A client and its middleware open nothing; a forked child that uses them first works."""
    before = open_things()
    client = make_client()
    app = create(Stage(), None)
    ProfileMiddleware(app, client=client, identify=from_session())
    say(opened=open_things() != before)
    wait_for(*(in_child(lambda name=name: asyncio.run(look_up(client, name))) for name in ("a", "b")))  # type: ignore[misc]  # a default binds the name now


def used_before() -> None:
    """A used client, with open connections and a running loop, keeps working in the parent and its children."""
    client = make_client()
    loop = new_loop()
    loop.run_until_complete(look_up(client, "before", close=False))

    def work(*keys: str) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(look_up(client, "before", *keys))

    children = [in_child(lambda: work("a", "a2")), in_child(lambda: work("b", "b2"))]
    wait_for(*children)
    loop.run_until_complete(look_up(client, "before", "after"))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def while_loading() -> None:
    """A child that is forked during a load does not wait for the load, which belongs to the parent."""
    client = make_client()

    async def main() -> None:
        load = asyncio.create_task(look_up(client, "slow", close=False))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.readline)

        def work() -> None:
            say(in_flight=client.stats().in_flight)
            asyncio.run(look_up(client, "slow"))

        # The child runs inside the parent's loop, and must not return to it.
        wait_for(in_child(work, leave=os._exit))
        await loop.run_in_executor(None, sys.stdin.readline)
        await load
        await client.aclose()

    asyncio.run(main())


if __name__ == "__main__":
    {"nothing_before": nothing_before, "used_before": used_before, "while_loading": while_loading}[sys.argv[1]]()
