"""From errors to messages and exit codes, and from asynchronous code to a command."""

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
from .vocabulary import in_words_of_the_command

__all__ = ["NOT_FOUND", "UNAVAILABLE", "USAGE", "Interrupted", "code_of", "guarded", "run"]

NOT_FOUND = 1
"""`lookup`: there is no such profile. `doctor`: something is wrong."""
USAGE = 2
"""The command, the configuration or the credentials are wrong."""
UNAVAILABLE = 3
"""The source could not answer."""

P = ParamSpec("P")
T = TypeVar("T")


def code_of(error: ProfileEnrichError) -> int:
    """The exit code that an error stands for."""
    if isinstance(error, SourceAuthError | SourceRequestError):
        return USAGE  # asking again changes nothing
    return UNAVAILABLE if isinstance(error, ProfileUnavailable) else USAGE


class Interrupted(Exception):
    """A signal stopped the command, which has put things in order.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def guarded(command: Callable[P, T]) -> Callable[P, T]:
    """A command whose expected failures become one line on stderr and an exit code, never a traceback.

    SIGINT, SIGTERM and SIGHUP end it at once with 128 + the signal's number; inside `run`, they cancel the coroutine
    first.
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
        if received:  # before there was a task to cancel
            task.cancel()
        return await main

    def stop() -> None:
        for call in cancel:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                call()

    # What the lookup core logs for operators ("pages go on without …"), the command says itself. A filter takes only
    # that logger's own records: what a vendor announces (`profile_enrich.sources`) still shows.
    core = logging.getLogger("profile_enrich")
    core.addFilter(_nothing)
    with stopping_on_signals(stop) as received:
        try:
            result = asyncio.run(supervised())
            if not received:
                return result
        except BaseException:
            if not received:  # else it is what became of the cancellation
                raise
        finally:
            core.removeFilter(_nothing)
            main.close()  # it was never begun, when the signal came first
    raise Interrupted(received[0])


def _nothing(record: logging.LogRecord) -> bool:
    return False
