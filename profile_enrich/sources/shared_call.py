"""Single flight for a call without a key, such as the renewal of a token."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from .._utils.deadline import Deadline
from .._utils.fork import reset_after_fork
from .._utils.single_flight import Load, SingleFlight
from ..errors import BudgetExceeded, ClientClosed, SourceConnectionError, SourceTimeout

__all__ = ["SharedCall"]

T = TypeVar("T")

Call = Callable[[Deadline], Coroutine[Any, Any, T]]


class _CallLoad(Load[None, T]):
    __slots__ = ("_call",)

    def __init__(self, call: Call[T], seconds: float) -> None:
        super().__init__(None, seconds)
        self._call = call

    async def run(self) -> T:
        return await self._call(self.start_deadline())


class SharedCall(Generic[T]):
    """Share one running call among concurrent callers, per event loop. The result is not cached.

    Args:
        call: an asynchronous function that takes a deadline.
        seconds: the deadline of one call, in seconds. Default 10.
    """

    def __init__(self, call: Call[T], *, seconds: float = 10.0) -> None:
        self._call = call
        self._seconds = seconds
        self._loads: SingleFlight[_CallLoad[T]] = SingleFlight()
        reset_after_fork(self)

    async def result(self, deadline: Deadline) -> T:
        """Return the result of the call in progress, or start one.

        Raises:
            SourceTimeout: `deadline` passed first; the call continues for the other callers.
            SourceConnectionError: the source was closed during the call.
        """
        load = self._loads.find(None) or self._loads.start(_CallLoad(self._call, self._seconds))
        late = False
        try:
            return await load.wait(deadline.remaining())
        except BudgetExceeded:
            late = True
        except ClientClosed:
            pass
        if late:
            raise SourceTimeout(f"the source gave no whole answer within {deadline.seconds:g} s")
        raise SourceConnectionError("the source was closed during the call")

    async def aclose(self) -> None:
        """Cancel the calls in progress."""
        await self._loads.aclose(0.0)

    def after_fork(self) -> None:
        """Forget the parent's calls in a forked child."""
        self._loads.forget()
