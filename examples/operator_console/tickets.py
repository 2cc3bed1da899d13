"""A mock ticket system for trying the extension. It needs no sign-in and does not use the console."""

from __future__ import annotations

import json
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

TICKETS = Path(__file__).resolve().parent / "data" / "tickets.json"


class Tickets:
    """The pages of the tickets."""

    def __init__(self, templates: Jinja2Templates) -> None:
        self._templates = templates
        self._tickets = {ticket["number"]: ticket for ticket in json.loads(TICKETS.read_text(encoding="utf-8"))}

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/tickets", self.tickets), Route("/tickets/{number:int}", self.ticket)]

    async def tickets(self, request: Request) -> Response:
        return self._templates.TemplateResponse(request, "tickets.html", {"tickets": self._tickets.values()})

    async def ticket(self, request: Request) -> Response:
        ticket = self._tickets.get(request.path_params["number"])
        if ticket is None:
            raise HTTPException(404)
        shown = {"ticket": ticket, "tickets": self._tickets.values()}
        return self._templates.TemplateResponse(request, "tickets.html", shown)
