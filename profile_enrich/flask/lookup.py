"""Lookup of one Flask request."""

from __future__ import annotations

import logging
from typing import Any, cast

from flask import Request, current_app, g, has_request_context, request
from flask.globals import request_ctx
from flask.sessions import NullSession
from starlette.requests import HTTPConnection
from starlette.types import Scope

from ..web.blocking_lookup import BlockingConfig, BlockingLookup
from ..web.native_request import NATIVE_REQUEST, scope_of_environ
from ..web.request_values import SESSION_COOKIE

__all__ = ["FlaskLookup", "current_lookup"]

logger = logging.getLogger("profile_enrich")

_REMEDIES = {
    "session": "set app.secret_key, or a session interface of your own",
    "user": "set up Flask-Login, LoginManager(app)",
}
_KEY = "profile_enrich."
"""Where the lookup is in the `environ`: `flask.g` may outlive a request, for example in tests that push a context."""


class FlaskLookup(BlockingLookup):
    """The lookup of one request. It counts reads, to detect memoized functions that read the profile.

    Args:
        config: the configuration.
        attribute: the name on `flask.g`.
    """

    def __init__(self, config: BlockingConfig, attribute: str) -> None:
        super().__init__(config, self._load)
        self.reads = 0
        self.reads_at_miss: dict[str, int] = {}
        """How often the profile had been read when a key was missing in Flask-Caching."""
        request.environ[_KEY + attribute] = self
        setattr(g, attribute, self.profile)

    def _on_read(self) -> None:
        super()._on_read()
        self.reads += 1

    def hold_scope(self) -> None:
        """Take what the lookup needs from the request: a stream runs after the end of the request context."""
        self._connection = HTTPConnection(self._load())

    def _load(self) -> Scope:
        scope = _scope()
        for name, remedy in _REMEDIES.items():
            missing = name not in scope or isinstance(scope[name], NullSession)
            if missing and name in self.config.requires() and self.config.once.first("required", name):
                logger.warning(
                    "there is no %s for the identity function: %s; until then pages are served anonymous", name, remedy
                )
        return scope

    def endpoint(self) -> str:
        """Return the name of the view, for the log."""
        return (request.endpoint if has_request_context() else None) or "the application"


def current_lookup(attribute: str) -> FlaskLookup | None:
    """Return the lookup of the current request, or `None`."""
    if not has_request_context():
        return None
    return cast("FlaskLookup | None", request.environ.get(_KEY + attribute))


def _scope() -> Scope:
    native: Request = cast(Any, request)._get_current_object()
    scope = scope_of_environ(native.environ)
    scope[NATIVE_REQUEST] = native
    scope[SESSION_COOKIE] = current_app.config["SESSION_COOKIE_NAME"]
    context = cast(Any, request_ctx)._get_current_object()
    # Not `flask.session`, which would mark the session as accessed.
    held = cast("dict[str, object]", vars(context))
    session = held.get("_session", held.get("session"))
    if session is not None:
        scope["session"] = session
    if hasattr(context.app, "login_manager"):
        from flask_login import current_user  # Flask-Login, which the application uses

        scope["user"] = current_user
    return scope
