"""From errors to messages and exit codes, and from asynchronous code to a command."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import click

from ..errors import ProfileEnrichError, ProfileUnavailable, SourceAuthError, SourceRequestError
from .vocabulary import in_words_of_the_command

__all__ = ["INTERRUPTED", "NOT_FOUND", "UNAVAILABLE", "USAGE", "code_of", "guarded", "run"]

NOT_FOUND = 1
"""`lookup`: there is no such profile. `doctor`: something is wrong."""
USAGE = 2
"""The command, the configuration or the credentials are wrong."""
UNAVAILABLE = 3
"""The source could not answer."""
INTERRUPTED = 130
"""Ctrl-C, as shells spell it; 143 for SIGTERM."""

P = ParamSpec("P")
T = TypeVar("T")


def code_of(error: ProfileEnrichError) -> int:
    """The exit code that an error stands for."""
    if isinstance(error, SourceAuthError | SourceRequestError):
        return USAGE  # asking again changes nothing
    return UNAVAILABLE if isinstance(error, ProfileUnavailable) else USAGE


class _Terminated(Exception):
    """SIGTERM arrived."""


def guarded(command: Callable[P, T]) -> Callable[P, T]:
    """A command whose expected failures become one line on stderr and an exit code, never a traceback."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except ProfileEnrichError as error:
            message, code = f"Error: {in_words_of_the_command(str(error))}", code_of(error)
        except KeyboardInterrupt:
            message, code = "Interrupted.", INTERRUPTED
        except _Terminated:
            message, code = "Terminated.", 143
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # `| head`: click ends it quietly
            where = "" if error.filename is None else f"{error.filename}: "
            message, code = f"Error: {where}{error.strerror or 'input or output failed'}", USAGE
        click.echo(message, err=True)
        raise click.exceptions.Exit(code)

    return wrapper


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. Ctrl-C and SIGTERM cancel it, so that its `finally` blocks still run.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    terminated = False

    async def supervised() -> T:
        task = asyncio.current_task()

        def stop() -> None:
            nonlocal terminated
            terminated = True
            if task is not None:
                task.cancel()

        # Not on Windows, nor outside the main thread; Ctrl-C works there all the same.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await main

    # What the lookup core logs for operators ("pages go on without …"), the command says itself. A filter takes only
    # that logger's own records: what a vendor announces (`profile_enrich.sources`) still shows.
    core = logging.getLogger("profile_enrich")
    core.addFilter(_nothing)
    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        if not terminated:
            raise
    finally:
        core.removeFilter(_nothing)
    raise _Terminated


def _nothing(record: logging.LogRecord) -> bool:
    return False
