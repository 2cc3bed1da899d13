"""Hint for errors about a profile that cannot be encoded as JSON."""

from __future__ import annotations

import re
from typing import Any, cast

from ..profile import Profile

__all__ = ["HINT", "explain_encoding"]

HINT = (
    "A Profile is not JSON-serializable: return profile.as_dict() or profile.as_model(...), declare the handler "
    "`-> Profile`, or give the encoder default=Profile.as_dict (msgspec: enc_hook)."
)

_REFUSED = re.compile(r"(?=.*\b(?:Profile|LocalProxy)\b).*(serializ|Encoding|valid response)", re.DOTALL)
"""The messages of json, orjson, msgspec, pydantic and Flask for unsupported objects. `current_profile` is a
`LocalProxy` to them."""


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
        about = (isinstance(error, TypeError) or name == "PydanticSerializationError") and bool(
            _REFUSED.match(str(error))
        )
    if about:
        error.add_note(HINT)
