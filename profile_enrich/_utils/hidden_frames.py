"""Frames that hold a vendor's answer stay out of tracebacks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from ..errors import ProfileEnrichError

__all__ = ["hide_frames"]

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


def hide_frames(function: F) -> F:
    """Raise this package's errors without the frames in which they arose.

    Error trackers write down the variables of every frame, and those of a source hold the answer that it refuses. The
    error's own text says what is wrong with it.
    """

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except ProfileEnrichError as raised:
            error = raised
        error.__context__ = None
        raise error.with_traceback(None)

    return cast("F", call)
