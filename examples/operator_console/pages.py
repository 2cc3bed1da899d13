"""The console's pages: search, a profile, the audit log."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from profile_enrich import InvalidKeyError, ProfileEnrichError, Status

from .audit_log import ACTIONS
from .console import Console, NotAllowed, Operator
from .rendering import Renderer, form_of
from .roles import heading

LINES = 100
"""The number of audit log lines on a page."""
FILTERS = ("who", "action", "subject")
"""The filters of the audit log."""
DONE = {
    "forgotten": "Removed from the cache. The next view calls the Profile API.",
    "password": "Your new password is set.",
}


class Pages:
    """The handlers."""

    def __init__(self, console: Console, renderer: Renderer) -> None:
        self.console = console
        self.renderer = renderer

    def routes(self) -> list[Route]:
        """Return the console's routes."""
        signed_in = self.renderer.for_operators
        return [
            Route("/", signed_in(self.home)),
            Route("/search", signed_in(self.home)),
            Route("/search", signed_in(self.search), methods=["POST"]),
            Route("/profile/{subject}", signed_in(self.profile)),
            Route("/profile/{subject}/forget", signed_in(self.forget), methods=["POST"]),
            Route("/audit-log", signed_in(self.audit_log)),
            Route("/ready", self.ready),
        ]

    async def home(self, request: Request, operator: Operator) -> Response:
        return self._home(request, operator, notice=DONE.get(request.query_params.get("done", ""), ""))

    async def search(self, request: Request, operator: Operator) -> Response:
        form = await form_of(request, operator)
        kind, value = form.get("kind", "id"), form.get("value", "").strip()
        if not value:
            return self._home(request, operator, 422, kind=kind, problem="Type what to search for.")
        problem, status = "", 200
        try:
            results = await self.console.search(operator, kind, value)
        except NotAllowed:
            return self._not_allowed(request)
        except InvalidKeyError:
            problem, status = "This cannot be looked up: it is too long, or no text.", 422
        except ProfileEnrichError as error:
            problem, status = _words(error), 503
        else:
            subjects = self.console.remember(operator, results.profiles)
            if len(subjects) == 1:
                return RedirectResponse(f"/profile/{subjects[0]}", status_code=303)
            if subjects:
                self.console.shown(operator, "listed", *subjects)
                views = [operator.role.view(found.attributes) for found in results.profiles]
                rows = [(heading(view), view, subject) for view, subject in zip(views, subjects, strict=True)]
                return self._home(request, operator, kind=kind, typed=value, rows=rows, more=results.more)
            problem, status = "There is no such profile. Values are compared exactly, with case.", 404
        return self._home(request, operator, status, kind=kind, typed=value, problem=problem)

    async def profile(self, request: Request, operator: Operator) -> Response:
        subject = request.path_params["subject"]
        id = self.console.handles.id(operator.session.id, subject)
        if id is None:
            return self._search_again(request)
        try:
            profile = await self.console.view(operator, subject, id)
        except ProfileEnrichError as error:
            return self.renderer.problem(request, 503, "No profile now", _words(error))
        if not profile:
            return self.renderer.problem(request, 404, "No such profile", "The Profile API has it no more.")
        view = operator.role.view(profile.attributes)
        return self.renderer.page(
            request,
            operator,
            "profile.html",
            heading=heading(view),
            view=view,
            subject=subject,
            cached=profile.status is Status.HIT,
            age=round(profile.age or 0),
            history=self.console.audit_log.of(subject),
        )

    async def forget(self, request: Request, operator: Operator) -> Response:
        await form_of(request, operator)
        subject = request.path_params["subject"]
        id = self.console.handles.id(operator.session.id, subject)
        if id is None:
            return self._search_again(request)
        try:
            self.console.forget(operator, subject, id)
        except NotAllowed:
            return self._not_allowed(request)
        return RedirectResponse("/?done=forgotten", status_code=303)

    async def audit_log(self, request: Request, operator: Operator) -> Response:
        if not operator.role.audit_log:
            return self._not_allowed(request)
        asked = request.query_params.get("before", "")
        before = int(asked) if re.fullmatch("[0-9]{1,18}", asked) else 2**62
        wanted = {name: request.query_params.get(name, "")[:64] for name in FILTERS}
        entries = self.console.audit_log.latest(LINES, before, **wanted)
        rest = entries[-1].number if len(entries) == LINES else None
        more = urlencode({**{name: value for name, value in wanted.items() if value}, "before": rest})
        return self.renderer.page(
            request,
            operator,
            "audit_log.html",
            entries=entries,
            more=more if rest else "",
            actions=ACTIONS,
            wanted=wanted,
        )

    async def ready(self, request: Request) -> Response:
        """Respond to a readiness check."""
        return PlainTextResponse("ready\n")

    # --- what they share --------------------------------------------------------------------------------------------

    async def http_error(self, request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        if status == 403:
            text = "This form is older than your session. Go back, reload the page and try again."
            return self.renderer.problem(request, 403, "Not sent", text)
        return self.renderer.problem(request, status, "Nothing here", "There is no such page.")

    def _home(
        self, request: Request, operator: Operator, status: int = 200, *, kind: str = "", typed: str = "",
        problem: str = "", notice: str = "", rows: object = (), more: bool = False,
    ) -> Response:  # fmt: skip
        return self.renderer.page(
            request, operator, "search.html", status=status, kinds=self.console.kinds(operator), kind=kind,
            typed=typed[:2048], example=self.console.settings.example_id,
            problem=problem, notice=notice, rows=rows, more=more,
        )  # fmt: skip

    def _search_again(self, request: Request) -> Response:
        text = "What was searched for is kept in memory, for your session alone. Search for the profile again."
        return self.renderer.problem(request, 404, "Search again", text)

    def _not_allowed(self, request: Request) -> Response:
        return self.renderer.problem(request, 403, "Not for your role", "Ask the administrator of the console.")


def _words(error: ProfileEnrichError) -> str:
    """Return the message for an operator. It contains no identifier, value or secret."""
    return f"The Profile API gave no answer that can be shown ({error.code}): {error.message}"
