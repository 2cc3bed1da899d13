"""Run the attacks, and print their results: `python -m tests.server.attack [TRIES] [WORD]`.

Each row is one attack with its figures; WORD chooses those whose title has it. The exit code is 1 when one failed.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cli.signal_rounds import COMMANDS

from .connections import disconnects, fuzzed, huge, idle, slow, smuggling, streams
from .files import damaged, full_disk
from .probes import scopes, webhooks
from .processes import descriptors, processes
from .running import ROWS, Skipped
from .signals import signal_rounds

Attack = Callable[[Path], tuple[bool, str]]

ATTACKS: list[Attack] = [
    huge, slow, idle, streams, smuggling, fuzzed, disconnects, descriptors, processes, damaged, full_disk, scopes,
    webhooks,
]  # fmt: skip


def main() -> int:
    """Run the attacks that were chosen."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    rows: list[tuple[str, Attack]] = [((each.__doc__ or "").rstrip("."), each) for each in ATTACKS]
    rows += [
        (f"Signals at random moments: `{command}`", partial(signal_rounds, command=command, tries=tries))
        for command in COMMANDS
    ]
    failed = 0
    began = time.monotonic()
    logging.getLogger("profile_enrich").setLevel(logging.CRITICAL)
    sys.stdout.write("| attack | withstood | figures |\n|---|---|---|\n")
    for title, attack in rows:
        if word not in title:
            continue
        with tempfile.TemporaryDirectory(prefix="attack-") as name:
            directory = Path(name)
            directory.chmod(0o755)
            lines = "".join(f"u{n},u{n}@x.example,{n}\n" for n in range(ROWS))
            (directory / "users.csv").write_text(f"id,email,n\n{lines}")
            try:
                fine, figures = attack(directory)
                withstood = "yes" if fine else "NO"
            except Skipped as missing:
                fine, withstood, figures = True, "not run", str(missing)
        failed += not fine
        sys.stdout.write(f"| {title} | {withstood} | {figures} |\n")
        sys.stdout.flush()
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    load = f", load at the end {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    sys.stdout.write(f"\n{failed} not withstood, in {minutes} min {seconds} s{load}.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
