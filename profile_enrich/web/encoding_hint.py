"""Hint for errors about a profile that cannot be encoded as JSON."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, cast

from ..profile import Profile

__all__ = ["HINT", "explain_encoding"]

HINT = (
    "A Profile is not JSON-serializable: return profile.as_dict() or profile.as_model(...), declare the handler "
    "`-> Profile`, or give the encoder default=Profile.as_dict (msgspec: enc_hook)."
)

_REFUSED = re.compile(r"serializ|Encoding|valid response")
"""The messages of json, orjson, msgspec, pydantic, Django and Flask for unsupported objects."""

_NAMED = re.compile(r"\bProfile(?:Proxy)?\b")


def explain_encoding(error: BaseException) -> None:
    """Add a note to an error about an unencodable profile.

    Args:
        error: the application's exception.
    """
    name = type(error).__name__
    if name == "ResponseValidationError":  # FastAPI's error for a return type other than Profile
        refused = [cast("dict[str, Any]", item).get("input") for item in cast(Any, error).errors()]
        about = any(isinstance(value, Profile) for value in refused)
    else:
        known = isinstance(error, TypeError) or name == "PydanticSerializationError"
        message = str(error) if known else ""
        about = bool(_REFUSED.search(message)) and bool(_NAMED.search(message) or _is_local(error.__traceback__))
    if about and HINT not in getattr(error, "__notes__", ()):
        error.add_note(HINT)


def _is_local(trace: TracebackType | None) -> bool:
    """Return whether the function that raised has a profile; Django's `JsonResponse` does not name what it refuses."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and any(type(value) is Profile for value in trace.tb_frame.f_locals.values())
