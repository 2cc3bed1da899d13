"""Sign-in, sign-out and the change of a password."""

from __future__ import annotations

import asyncio
import math

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from .console import Console, Operator
from .passwords import LONGEST, SHORTEST, hash_password
from .rendering import Renderer, form_of
from .security import local_path
from .users import check_password

AT_ONCE = 2
"""The number of concurrent password checks; each needs a processor and 32 MiB."""
WRONG = "The name or the password is wrong."


class Auth:
    """The handlers."""

    def __init__(self, console: Console, renderer: Renderer) -> None:
        self.console = console
        self.renderer = renderer
        self._turn = asyncio.Semaphore(AT_ONCE)

    def routes(self) -> list[Route]:
        """Return the routes of sign-in and sign-out."""
        return [
            Route("/sign-in", self.sign_in_page),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.renderer.for_operators(self.sign_out, always=True), methods=["POST"]),
            Route("/password", self.renderer.for_operators(self.password_page, always=True)),
            Route("/password", self.renderer.for_operators(self.password, always=True), methods=["POST"]),
        ]

    async def sign_in_page(self, request: Request) -> Response:
        if self.console.operator(request) is not None:
            return RedirectResponse("/", status_code=303)
        return self._sign_in_form(request, local_path(request.query_params.get("next", "/")))

    async def sign_in(self, request: Request) -> Response:
        form = await form_of(request)
        name, target = form.get("name", "").strip().lower()[:64], local_path(form.get("next", "/"))
        stored = self.console.users.stored(name)
        wait, right = await self._check(request, name, form.get("password", ""), stored)
        if wait:
            return self._too_many(request, target, wait)
        if not right:
            # A name that is nobody's is not noted: people type passwords into the wrong field.
            self.console.audit_log.note(name if stored else "", "", "refused", outcome="wrong password")
            return self._sign_in_form(request, target, WRONG, status=401)
        old = self.console.operator(request)
        if old is not None:
            self._end(old)
        response = RedirectResponse(target, status_code=303)
        self._start_session(response, name)
        self.console.audit_log.prune(self.console.settings.keep_days)
        return response

    async def sign_out(self, request: Request, operator: Operator) -> Response:
        await form_of(request, operator)
        self._end(operator)
        response = RedirectResponse("/sign-in", status_code=303)
        response.delete_cookie(
            self.console.cookie, secure=self.console.settings.secure_cookie, httponly=True, samesite="lax"
        )
        return response

    async def password_page(self, request: Request, operator: Operator) -> Response:
        return self.renderer.page(request, operator, "password.html", shortest=SHORTEST, problem="")

    async def password(self, request: Request, operator: Operator) -> Response:
        form = await form_of(request, operator)
        current, new = form.get("current", ""), form.get("new", "")
        problem = _problem_with(new, form.get("again", ""), current)
        status = 422
        if not problem:
            stored = self.console.users.stored(operator.name)
            wait, right = await self._check(request, operator.name, current, stored)
            if wait:
                problem, status = _later(wait), 429
            elif not right:
                problem = "The current password is wrong."
        if problem:
            return self.renderer.page(
                request, operator, "password.html", status=status, shortest=SHORTEST, problem=problem
            )
        async with self._turn:
            hashed = await asyncio.to_thread(hash_password, new)
        self.console.handles.drop(operator.session.id)
        self.console.users.set_password(operator.name, hashed)  # this ends all sessions, and a new one begins
        self.console.audit_log.note(operator.name, operator.role.name, "new password")
        response = RedirectResponse("/?done=password", status_code=303)
        self._start_session(response, operator.name)
        return response

    # --- what they share --------------------------------------------------------------------------------------------

    async def _check(self, request: Request, name: str, password: str, stored: str | None) -> tuple[float, bool]:
        """Return the seconds before the next attempt is allowed, or 0 and whether the password is right."""
        address = request.client.host if request.client else ""
        wait = self.console.attempts.begin(name, address)
        if wait or len(password) > LONGEST:
            return wait, False
        async with self._turn:
            right = await asyncio.to_thread(check_password, password, stored)
        if right:
            self.console.attempts.succeeded(name, address)
        return 0.0, right

    def _start_session(self, response: Response, name: str) -> None:
        token = self.console.sessions.start(name)
        # Lax, not Strict: a link from a ticket to the console finds its operator signed in. The extension's requests
        # carry it because the extension may reach this host. Without an age it ends with the browser, at the latest.
        response.set_cookie(
            self.console.cookie,
            token,
            secure=self.console.settings.secure_cookie,
            httponly=True,
            samesite="lax",
            path="/",
        )
        session = self.console.sessions.read(token)
        self.console.audit_log.note(name, "" if session is None else session.role, "signed in")

    def _end(self, operator: Operator) -> None:
        self.console.sessions.end(operator.session)
        self.console.handles.drop(operator.session.id)
        self.console.audit_log.note(operator.name, operator.role.name, "signed out")

    def _too_many(self, request: Request, target: str, wait: float) -> Response:
        response = self._sign_in_form(request, target, _later(wait), status=429)
        response.headers["retry-after"] = str(math.ceil(wait))
        return response

    def _sign_in_form(self, request: Request, target: str, problem: str = "", *, status: int = 200) -> Response:
        return self.renderer.page(request, None, "sign_in.html", status=status, target=target, problem=problem)


def _problem_with(new: str, again: str, current: str) -> str:
    """Return why a new password is refused, as a sentence; empty if it is accepted."""
    if not SHORTEST <= len(new) <= LONGEST:
        return f"A new password has {SHORTEST} to {LONGEST} characters."
    if new != again:
        return "The new password was not typed the same twice."
    if new == current:
        return "The new password must be another one."
    return ""


def _later(wait: float) -> str:
    minutes = math.ceil(wait / 60)
    return f"Too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
