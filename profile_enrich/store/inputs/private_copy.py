"""A temporary copy of an input: of a stream, which can be read only once, or of a text in another encoding."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Iterable, Iterator
from typing import IO

from ..._utils.files import private_opener
from ..._utils.temporary_directory import temporary_directory
from ..._utils.text_encoding import MARKED
from ...errors import StoreError
from .base import DAMAGED, UNREADABLE

__all__ = ["PrivateCopy", "as_utf8", "blocks"]

_BLOCK = 1 << 20


class PrivateCopy:
    """A temporary file that only its owner can read. `close`, and a signal that ends the process, remove it.

    Args:
        content: its bytes, block by block.
        suffix: the suffix of its name, e.g. `".csv"`.
        where: the input, for messages.

    Raises:
        StoreError: the input cannot be read, or the copy cannot be written.
    """

    def __init__(self, content: Iterable[bytes], suffix: str, where: str) -> None:
        self._stack = contextlib.ExitStack()
        problem = ""
        with contextlib.ExitStack() as stack:
            try:
                self.path = stack.enter_context(temporary_directory()) / f"input{suffix}"
                with open(self.path, "xb", opener=private_opener) as file:
                    file.writelines(content)
                self._stack = stack.pop_all()
            except DAMAGED:
                problem = "be unpacked; is it whole?"
            except UNREADABLE as error:
                reason = getattr(error, "strerror", None) or type(error).__name__
                problem = f"be copied to a temporary file: {reason}; TMPDIR says where"
        if problem:
            raise StoreError(f"{where} cannot {problem}")

    def close(self) -> None:
        """Remove the file."""
        self._stack.close()


def blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a file."""
    while block := file.read(_BLOCK):
        yield block


def as_utf8(content: Iterable[bytes], codec: str) -> Iterator[bytes]:
    """Yield text as UTF-8. Invalid characters become invalid UTF-8, so that their line is found later.

    Args:
        content: the text, block by block, in its own encoding.
        codec: Python's name of this encoding.
    """
    decoder = codecs.getincrementaldecoder(codec)(errors=MARKED)
    for block in content:
        yield decoder.decode(block).encode("utf-8", "surrogateescape")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")
