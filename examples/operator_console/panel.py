"""The endpoint of the extension's side panel: one profile, for the operator of the browser's session."""

from __future__ import annotations

import json
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from profile_enrich import AmbiguousMatch, InvalidKeyError, ProfileEnrichError

from .console import Console, NotAllowed, Operator
from .roles import heading

LINES = 5
"""The number of history lines in the panel."""


class Panel:
    """The handler of `POST /panel/profile`.

    A POST with the value in its body: it is in no URL, no log of a proxy and no history. Answers are JSON:

    ```text
    {"kind": "id", "value": "…"}
    200 {"found": true, "heading": …, "fields": [{"name", "title", "text"}], "hidden": 4, "history": […], "url": …}
    200 {"found": false}
    401 {"error": "signed_out"}      403 {"error": "not_allowed"} or {"error": "change_password"}
    409 {"error": "several"}         422 {"error": "invalid"}         503 {"error": "unavailable", "code": …}
    ```
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    def routes(self) -> list[Route]:
        """Return the route of the panel."""
        return [Route("/panel/profile", self.profile, methods=["POST"])]

    async def profile(self, request: Request) -> Response:
        operator = self.console.operator(request)
        if operator is None:
            return _error(401, "signed_out")
        if operator.session.must_change:
            return _error(403, "change_password")
        question = _question(await request.body())
        if question is None or request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _error(422, "invalid")
        try:
            return await self._answer(operator, *question)
        except NotAllowed:
            return _error(403, "not_allowed")
        except InvalidKeyError:
            return _error(422, "invalid")
        except AmbiguousMatch:
            return _error(409, "several")
        except ProfileEnrichError as error:
            return _error(503, "unavailable", code=error.code)

    async def _answer(self, operator: Operator, kind: str, value: str) -> Response:
        results = await self.console.search(operator, kind, value, action="panel")
        who = {"operator": operator.name, "role": operator.role.name}
        number = len(results.profiles)
        if number == 0:
            return JSONResponse({"found": False, **who})
        if number > 1:
            return _error(409, "several")
        found, subject = results.profiles[0], self.console.remember(operator, results.profiles)[0]
        if subject != self.console.audit_log.subject(
            kind, value
        ):  # else the search itself is the line about this person
            self.console.shown(operator, "panel", subject)
        view = operator.role.view(found.attributes)
        history = self.console.audit_log.of(subject, LINES)
        return JSONResponse(
            {
                "found": True,
                **who,
                "heading": heading(view),
                "fields": [{"name": each.name, "title": each.title, "text": each.text} for each in view.fields],
                "hidden": view.hidden,
                "history": [{"at": each.at, "who": each.who, "action": each.action} for each in history],
                "url": f"/profile/{subject}",
            }
        )


def _question(body: bytes) -> tuple[str, str] | None:
    """Return kind and value; `None` if the body is invalid."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    members = cast("dict[str, object]", data)
    kind, value = members.get("kind"), members.get("value")
    return (kind, value) if isinstance(kind, str) and isinstance(value, str) else None


def _error(status: int, error: str, **more: str) -> Response:
    return JSONResponse({"error": error, **more}, status_code=status)
