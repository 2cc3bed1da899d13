"""Reading of a server's replies (RESP2, https://redis.io/docs/latest/develop/reference/protocol-spec/)."""

from __future__ import annotations

from typing import Any

__all__ = ["IncompleteReply", "Refused", "read_reply"]


class IncompleteReply(Exception):
    """The rest of the reply has not arrived yet."""


class Refused(Exception):
    """The server answered with an error, which is the message."""


def read_reply(data: bytes, position: int) -> tuple[Any, int]:
    """Return the reply that begins at a position, and the position after it.

    Returns:
        Bytes, an integer, a list, `None`, or `Refused` for an error.

    Raises:
        IncompleteReply: the data end before the reply does.
        ValueError: the data are not a reply.
    """
    end = data.find(b"\r\n", position)
    if end < 0:
        raise IncompleteReply
    kind, line, position = data[position], data[position + 1 : end], end + 2
    if kind == 36:  # $: a bulk string
        length = int(line)
        if length < 0:
            return None, position
        end = position + length
        if len(data) < end + 2:
            raise IncompleteReply
        return data[position:end], end + 2
    if kind == 42:  # *: an array
        length = int(line)
        if length < 0:
            return None, position
        items: list[Any] = []
        for _ in range(length):
            item, position = read_reply(data, position)
            items.append(item)
        return items, position
    if kind == 58:  # `:`: an integer
        return int(line), position
    if kind == 43:  # +: a simple string
        return line, position
    if kind == 45:  # -: an error
        return Refused(line.decode(errors="replace")), position
    raise ValueError("not a reply of Valkey's or Redis'")
