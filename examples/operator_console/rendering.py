"""Helpers of all pages: the operator, templates, forms with a token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.templating import Jinja2Templates

from .console import Console, Operator
from .security import is_token

Handler = Callable[[Request, Operator], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Renderer:
    """Render pages."""

    def __init__(self, console: Console, templates: Jinja2Templates) -> None:
        self.console = console
        self._templates = templates

    def page(
        self, request: Request, operator: Operator | None, template: str, *, status: int = 200, **values: Any
    ) -> Response:
        """Return a page for an operator, or for a visitor who is not signed in."""
        shown = {"operator": operator, "csrf": "" if operator is None else operator.session.csrf, **values}
        return self._templates.TemplateResponse(request, template, shown, status_code=status)

    def problem(self, request: Request, status: int, title: str, text: str) -> Response:
        """Return an error page."""
        operator = self.console.operator(request)
        return self.page(request, operator, "problem.html", status=status, title=title, text=text)

    def for_operators(self, handler: Handler, *, always: bool = False) -> Endpoint:
        """Return an endpoint that requires a sign-in; others are redirected to it.

        Args:
            handler: answers.
            always: also before they have chosen a password of their own.
        """

        async def endpoint(request: Request) -> Response:
            operator = self.console.operator(request)
            if operator is None:
                back = quote(request.url.path) if request.method == "GET" else "/"
                return RedirectResponse(f"/sign-in?next={back}", status_code=303)
            if operator.session.must_change and not always:
                return RedirectResponse("/password", status_code=303)
            return await handler(request, operator)

        return endpoint


async def form_of(request: Request, operator: Operator | None = None) -> dict[str, str]:
    """The fields of a form.

    Raises:
        HTTPException: an operator's form does not carry their session's token.
    """
    async with request.form(max_fields=10, max_files=0) as form:
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
    if operator is not None and not is_token(fields.get("csrf"), operator.session.csrf):
        raise HTTPException(403)
    return fields
