"""What `make demo` runs: `python -m examples.demo`. `API_PORT` (8787) and `SHOP_PORT` (8000) are variables."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping

from examples.storefront.featured import FEATURED

from .commands import profile_api, storefront
from .control import CONTROL_VARIABLE, ControlServer
from .keyboard import read_key, single_keys
from .launcher import Launcher
from .ports import Ports
from .process import HOST, DemoError

KEYS = {"a": "api", "s": "shop"}


def welcome(ports: Ports, key: str, terminal: bool) -> str:
    """Return what is printed once both processes answer."""
    people = "\n".join(f"    {item.number:>5}  {item.title}: {item.line}" for item in FEATURED)
    keys = (
        "  Keys:  a  stop or start the Profile API    s  stop or start the shop    q  quit"
        if terminal
        else "  Ctrl-C stops both."
    )
    return f"""
  The shop          http://{HOST}:{ports.shop}
  The Profile API   http://{HOST}:{ports.api}

  Sign in to the shop as one of these, or as any other household number up to 2500:
{people}

  Ask the Profile API yourself, in another terminal:

    export PROFILE_ENRICH_API_KEY={key}
    curl -H "Authorization: Bearer $PROFILE_ENRICH_API_KEY" '{record_url(ports)}'

  Stop the Profile API and reload a page of the shop: it keeps coming. Start it again. The button at the bottom of
  each page stops and starts it, too.

{keys}
"""


def record_url(ports: Ports) -> str:
    """Return the address of one household's record."""
    return f"http://{HOST}:{ports.api}/api/v1/entities/1/record?record_id={FEATURED[0].number}"


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Run both processes until the user quits. Return the exit code."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A flag, not an exception: an exception while a process is being started would leave it behind.
        signal.signal(number, lambda number, frame: stopping.set())
    try:
        ports = Ports.from_environment(environment)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr, flush=True)
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
            print(f"demo: {error}", file=sys.stderr, flush=True)
            return 1
        finally:
            launcher.stop_all()
    return 0


def run_key(launcher: Launcher, name: str) -> None:
    """Stop or start a process; a failure is printed and ends nothing."""
    try:
        launcher.toggle(name)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
