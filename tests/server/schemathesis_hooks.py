"""Schemathesis hooks for constraints that the OpenAPI description cannot express. Only valid requests are left out.

- `next_token` is any text as far as a schema can say; a token that the server did not sign is refused (400).
- The vendor's file gives `limit` no bounds; the server takes 1 to 1,000.
- The vendor's file calls `filter` a text; its own prose writes `filter[attribute]=value`, and so does the server.
"""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Return whether a request is sent."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return True
    query = case.query or {}
    limit = query.get("limit", 1)
    return "next_token" not in query and "filter" not in query and 1 <= int(limit) <= 1000
