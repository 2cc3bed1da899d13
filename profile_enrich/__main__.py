"""The entry point of `profile-enrich` and of `python -m profile_enrich`."""

from __future__ import annotations

import signal
import sys
import threading

__all__ = ["main"]

_EXTRA = {"click", "rich"}


def main() -> None:
    """Run the command line. Without the extra `cli`, print how to install it and exit with status 2."""
    # Python's SIGINT handler would raise inside of an import and print a traceback; the default one ends the process.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler and threading.current_thread() is (
        threading.main_thread()
    )
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from .cli.app import cli
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(
            f"profile-enrich: the commands need {missing}, which is not installed. Install the extra `cli`:\n"
            "    pip install 'profile-enrich[cli]'\n"
        )
        sys.exit(2)
    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli(prog_name="profile-enrich")


if __name__ == "__main__":
    main()
