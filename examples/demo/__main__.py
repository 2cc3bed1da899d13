"""What `make demo` runs: `python -m examples.demo`. `API_PORT` (8787) and `SHOP_PORT` (8000) are variables."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping

from .commands import profile_api, storefront
from .control import CONTROL_VARIABLE, ControlServer
from .launcher import Launcher
from .ports import Ports
from .process import DemoError
from .terminal import read_key, single_keys, wrapped
from .wording import welcome

KEYS = {"a": "api", "s": "shop"}


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Run both processes until the user quits. Return the exit code."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A flag, not an exception: an exception while a process is being started would leave it behind.
        signal.signal(number, lambda number, frame: stopping.set())
    try:
        ports = Ports.from_environment(environment)
    except DemoError as error:
        print(wrapped(f"demo: {error}"), file=sys.stderr, flush=True)
        return 1
    key = secrets.token_urlsafe(32)
    launcher = Launcher({"api": profile_api(ports.api, key)}, say=lambda line: print(line, flush=True))
    with ControlServer.serving(launcher) as control, single_keys() as terminal:
        launcher.processes["shop"] = storefront(ports.shop, ports.api, key, {CONTROL_VARIABLE: str(control.path)})
        try:
            print("Starting the Profile API and the shop ...", flush=True)
            launcher.start_all(stopping)
            if not stopping.is_set():
                print(welcome(ports, key, terminal), flush=True)
            while not stopping.is_set():
                pressed = read_key(0.2) if terminal else ""
                if pressed == "q":
                    break
                if pressed in KEYS:
                    run_key(launcher, KEYS[pressed])
                if not terminal:
                    stopping.wait(0.2)
                launcher.report_deaths()
            print("\nStopping.", flush=True)
        except DemoError as error:
            print(wrapped(f"demo: {error}"), file=sys.stderr, flush=True)
            return 1
        finally:
            launcher.stop_all()
    return 0


def run_key(launcher: Launcher, name: str) -> None:
    """Stop or start a process; a failure is printed and ends nothing."""
    try:
        launcher.toggle(name)
    except DemoError as error:
        print(wrapped(f"demo: {error}"), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
