"""What a vendor says about a failed request, made fit to be shown."""

from __future__ import annotations

import html
from collections.abc import Iterable
from urllib.parse import unquote_plus

__all__ = ["Redactor"]

_SHOWN = 200
_PIECE = 6


class Redactor:
    """Texts that must not be shown: the identifiers and secrets of a request.

    Args:
        texts: as they are; nothing has to be encoded.
    """

    __slots__ = ("_texts",)

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(text for text in texts if text)

    def shown(self, message: object, limit: int = _SHOWN) -> str | None:
        """The message, at most `limit` printable characters of it, or `None` when it is no text or repeats a needle.

        Repeating means: six characters in a row (or all of a shorter needle), in either case, percent-encoded,
        HTML-escaped or with other marks in between. A vendor that quotes the beginning of an e-mail address is
        found out, too; the price is that now and then an innocent message is not shown.
        """
        if not isinstance(message, str) or not message:
            return None
        text = "".join(char if char.isprintable() else " " for char in message[: 10 * limit]).strip()
        if not text or self.found_in(text):
            return None
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def found_in(self, text: str) -> bool:
        """Whether the text repeats a needle."""
        hay = _letters(html.unescape(unquote_plus(text)))
        for needle in self._texts:
            letters = _letters(needle)
            if not letters:  # punctuation only
                if needle in text or needle in unquote_plus(text):
                    return True
            elif any(letters[at : at + _PIECE] in hay for at in range(max(1, len(letters) - _PIECE + 1))):
                return True
        return False


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())
