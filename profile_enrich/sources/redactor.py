"""Redaction of vendors' error messages."""

from __future__ import annotations

import html
from collections.abc import Iterable
from urllib.parse import unquote_plus

__all__ = ["Redactor"]

_SHOWN = 200
_PIECE = 6


class Redactor:
    """Redact the identifiers and secrets of a request from a vendor's message.

    Args:
        texts: the identifiers and secrets, not encoded.
    """

    __slots__ = ("_texts",)

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(text for text in texts if text)

    def shown(self, message: object, limit: int = _SHOWN) -> str | None:
        """Return up to `limit` printable characters of the message; `None` if it is not text or repeats a secret.

        A message repeats a secret if it holds six consecutive characters of it (or all of a shorter one), in any case,
        percent-encoded, HTML-escaped or with punctuation in between. This also catches the beginning of an e-mail
        address; as a trade-off, a harmless message is sometimes withheld.
        """
        if not isinstance(message, str) or not message:
            return None
        text = "".join(char if char.isprintable() else " " for char in message[: 10 * limit]).strip()
        if not text or self.found_in(text):
            return None
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def found_in(self, text: str) -> bool:
        """Return whether the text repeats a secret."""
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
