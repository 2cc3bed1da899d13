"""Dead letters: records that were not enriched, and where they are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...errors import ConfigurationError, TooManyErrors

__all__ = ["DeadLetter", "DeadLetterOutput", "Sink"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was not enriched.

    Args:
        position: the position in the input, from 0.
        row: the record, unchanged. It is not part of the `repr`.
        code: the reason in one word: the `code` of an error, `not_found` or `excluded`.
        message: the reason in a sentence without values.
    """

    position: int
    row: Any = field(repr=False)
    code: str
    message: str


class _Collector(Protocol):
    def append(self, letter: DeadLetter, /) -> object: ...


Sink = Callable[[DeadLetter], object] | _Collector
"""A function that takes each dead letter (async or not, except for `enrich_blocking`), or a list."""


class DeadLetterOutput:
    """Write dead letters to the user's function or list, or keep them in memory.

    Args:
        sink: the user's function or list; `None` to keep them.
        max_kept: the largest number of kept dead letters.

    Raises:
        ConfigurationError: the sink is neither a function nor a list.
    """

    def __init__(self, sink: Sink | None, max_kept: int) -> None:
        self.kept: list[DeadLetter] = []
        """The dead letters, if there is no sink."""
        self._sink = _function_of(sink)
        self._max_kept = max_kept

    def write(self, letter: DeadLetter) -> object:
        """Pass a dead letter to the sink and return its result, or keep the dead letter.

        Raises:
            TooManyErrors: there is no sink, and there are too many to keep in memory.
        """
        if self._sink is not None:
            return self._sink(letter)
        self.kept.append(letter)
        if len(self.kept) > self._max_kept:
            raise TooManyErrors(
                f"more than {self._max_kept:,} dead letters, which are kept in memory: pass dead_letter=, a function "
                "that writes them somewhere"
            )
        return None


def _function_of(given: Sink | None) -> Callable[[DeadLetter], object] | None:
    if given is None:
        return None
    append = getattr(given, "append", None)
    taker = append if callable(append) else given
    if not callable(taker):
        raise ConfigurationError(f"dead_letter must be a function or a list, not {type(given).__name__}")
    return taker
