"""The entry point of `profile-enrich` and of `python -m profile_enrich`."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = {"click", "rich"}


def main() -> None:
    """Runs the commands. Without the extra `cli` it says how to install it, and exits with 2."""
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
    cli(prog_name="profile-enrich")


if __name__ == "__main__":
    main()
