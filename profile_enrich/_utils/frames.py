"""Frames that hold a vendor's answer stay out of tracebacks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from ..errors import ProfileEnrichError

__all__ = ["hide_frames"]

P = ParamSpec("P")
T = TypeVar("T")


def hide_frames(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Raise this package's errors without the frames in which they arose.

    Error trackers write down the variables of every frame, and those of a source hold the answer that it refuses. The
    error's own text says what is wrong with it.
    """

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except ProfileEnrichError as raised:
            error = raised
        error.__context__ = None
        raise error.with_traceback(None)

    return call
