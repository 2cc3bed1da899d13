"""Mapping of errors to messages and exit codes, and running of coroutines in commands."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import click

from .._utils.signals import SAID, ending_on_signals, stopping_on_signals
from ..errors import ProfileEnrichError, ProfileUnavailable, SourceAuthError, SourceRequestError
from .cli_wording import in_words_of_the_command

__all__ = ["NOT_FOUND", "UNAVAILABLE", "USAGE", "Interrupted", "code_of", "guarded", "run"]

NOT_FOUND = 1
"""`lookup`: the profile does not exist. `doctor`: there is a problem."""
USAGE = 2
"""The command, the configuration or the credentials are wrong."""
UNAVAILABLE = 3
"""The source is unavailable."""

P = ParamSpec("P")
T = TypeVar("T")


def code_of(error: ProfileEnrichError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, SourceAuthError | SourceRequestError):
        return USAGE  # a retry would not help
    return UNAVAILABLE if isinstance(error, ProfileUnavailable) else USAGE


class Interrupted(Exception):
    """A signal stopped the command, which has cleaned up.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def guarded(command: Callable[P, T]) -> Callable[P, T]:
    """Turn expected errors of a command into one line on stderr and an exit code, without a traceback.

    SIGINT, SIGTERM and SIGHUP end it immediately with 128 + the signal's number; inside `run`, they cancel the
    coroutine first.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with ending_on_signals():
                return command(*args, **kwargs)
        except ProfileEnrichError as error:
            message, code = f"Error: {in_words_of_the_command(str(error))}", code_of(error)
        except Interrupted as stopped:
            message, code = SAID[stopped.number], 128 + stopped.number
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # `| head`: click ends it quietly
            where = "" if error.filename is None else f"{error.filename}: "
            message, code = f"Error: {where}{error.strerror or 'input or output failed'}", USAGE
        click.echo(message, err=True)
        raise click.exceptions.Exit(code)

    return wrapper


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. A signal cancels it, so that its `finally` blocks still run.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived.
    """
    cancel: list[Callable[[], object]] = []

    async def supervised() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # `asyncio.run` makes one
        loop = asyncio.get_running_loop()
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        if received:  # the signal arrived before the task existed
            task.cancel()
        return await main

    def stop() -> None:
        for call in cancel:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                call()

    # The command prints its own messages instead of the lookup core's log. The filter drops only that logger's records;
    # a vendor's announcements (`profile_enrich.sources`) are still shown.
    core = logging.getLogger("profile_enrich")
    core.addFilter(_nothing)
    with stopping_on_signals(stop) as received:
        try:
            result = asyncio.run(supervised())
            if not received:
                return result
        except BaseException:
            if not received:  # otherwise it results from the cancellation
                raise
        finally:
            core.removeFilter(_nothing)
            main.close()  # never started, if the signal came first
    raise Interrupted(received[0])


def _nothing(record: logging.LogRecord) -> bool:
    return False
