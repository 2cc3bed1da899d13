"""The entry point of the command `profile-enrich`.

It stands beside the package because importing anything from that loads the whole library, which takes a while, and a
signal may arrive meanwhile. Python's own handler of SIGINT raises inside an import and shows a traceback; the system's
ends the process, as it does for SIGTERM and SIGHUP.
"""

import gc
import signal
import sys
import threading

__all__ = ["main"]

_EXTRA = {"click", "rich"}


def main() -> None:
    """Run the command line. Without the extra `cli`, print how to install it and exit with status 2."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and (
        threading.current_thread() is threading.main_thread()
    ):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from profile_enrich._utils.signals import ending_on_signals
        from profile_enrich.cli.app import cli
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(
            f"profile-enrich: the commands need {missing}, which is not installed. Install the extra `cli`:\n"
            "    pip install 'profile-enrich[cli]'\n"
        )
        sys.exit(2)
    gc.freeze()  # what was imported lives until the end: a collection need not visit it
    with ending_on_signals():
        cli(prog_name="profile-enrich")
