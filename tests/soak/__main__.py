"""`python -m tests.soak --minutes 3`: exit code 1 when anything happened that must not."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence

from .checker import say
from .run import soak, table
from .settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long (default 3)")
    parser.add_argument("--seed", type=int, help="of everything random (default: another one each time)")
    parser.add_argument("--visitors", type=int, default=300, help="devices at the same time (default 300)")
    options = parser.parse_args(arguments)
    seed: int = random.randrange(2**31) if options.seed is None else options.seed
    settings = Settings.of_minutes(options.minutes, seed, options.visitors)
    say(
        f"soak: seed {seed}, {settings.chapters} chapters of {settings.chapter_seconds:.1f} s, "
        f"{settings.visitors} + {settings.socket_visitors} visitors"
    )
    outcome = asyncio.run(soak(settings))
    say("")
    say(table(outcome, settings))
    violations = outcome.checker.violations
    if not violations:
        say("\nNothing happened that must not.")
        return 0
    say(f"\nVIOLATED: {len(violations)} rules")
    for rule, cases in violations.items():
        say(f"- {rule}: {len(cases)} times")
        for case in filter(None, cases):
            say(f"    {case}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
