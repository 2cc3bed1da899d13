"""Flask extension `ProfileEnrich`, and its view helpers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from flask import Flask, Response, abort, current_app, got_request_exception, request, request_started
from werkzeug.datastructures import Headers
from werkzeug.local import LocalProxy

from .._utils.log_once import LogOnce
from ..client.client import ProfileClient
from ..errors import ConfigurationError, ProfileRequired
from ..profile import Profile, Reason
from ..templating import TemplateProfile
from ..web.argument_checks import check_attribute
from ..web.blocking_lookup import BlockingConfig
from ..web.encoding_hint import HINT, explain_encoding
from .flask_caching import guard_caches
from .lookup import FlaskLookup, current_lookup

__all__ = ["ProfileEnrich", "current_profile", "profile_required", "refresh_profile"]

View = TypeVar("View", bound=Callable[..., Any])

logger = logging.getLogger("profile_enrich")

_once = LogOnce()


class ProfileEnrich:
    """Attach the signed-in person's profile to each request, as `flask.g.profile` and `current_profile`.

    The lookup runs when the profile is first read, in the request's thread. If it fails, the profile is empty and the
    page is still served. A page that reads the profile gets `Vary` and `Cache-Control: private`, and Flask-Caching does
    not store it.

    Args:
        app: the Flask application; or call `init_app` later.
        client: the client, which all request threads share; it runs on one event loop in a separate thread.
        identify: the identity function, such as `from_session(...)`, or a function that takes Flask's request and
            returns a key or `None`. `from_user(...)` takes Flask-Login's user.
        budget: the longest that a page waits for a profile, in seconds; `None` waits for the client's `deadline`.
            Default 0.05.
        consent: the consent function: `honour_gpc()`, or a function that takes Flask's request and returns a bool.
        exclude: path prefixes without lookups, compared by whole segments.
        attribute: the name on `flask.g` and in templates. Default `"profile"`.
        vary_on: the request headers that determine the identity; by default those of `identify`, or `Cookie` for
            your own function.
        server_timing: whether to add a `Server-Timing` header with the lookup's status and duration. Default false.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        client: ProfileClient,
        identify: Callable[[Any], Any],
        budget: float | None = 0.05,
        consent: Callable[[Any], Any] | None = None,
        exclude: Iterable[str] = (),
        attribute: str = "profile",
        vary_on: Iterable[str] | None = None,
        server_timing: bool = False,
    ) -> None:
        self._attribute = check_attribute(attribute)
        self._config = BlockingConfig(
            client=client,
            identify=identify,
            budget=budget,
            consent=consent,
            exclude=exclude,
            vary_on=vary_on,
            server_timing=server_timing,
        )
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register the extension with an application. Several applications can share one extension.

        Args:
            app: the application.

        Raises:
            ConfigurationError: the application already has an extension with this `attribute`.
        """
        name = f"profile_enrich.{self._attribute}"
        if name in app.extensions:
            raise ConfigurationError(f"attribute {self._attribute!r} is taken: this application has a ProfileEnrich")
        app.extensions[name] = self
        request_started.connect(self._begin, app)  # before all of the application's own functions
        got_request_exception.connect(_explain, app)
        for signal in _sign_in_signals():
            signal.connect(self._renew, app)
        app.after_request_funcs.setdefault(None, []).insert(0, self._finish)  # Flask calls the first one last
        app.teardown_request(self._teardown)
        app.context_processor(self._template_context)

    def close(self) -> None:
        """Close the client and end its thread. Not needed at the end of the process."""
        self._config.client.close()

    def _begin(self, app: Flask, **_: object) -> None:
        guard_caches(app, self._attribute)
        lookup = FlaskLookup(self._config, self._attribute)
        if self._config.exclude and self._config.excludes(request.path):
            lookup.skip(Reason.NOT_LOOKED_UP)

    def _finish(self, response: Response) -> Response:
        if cast(object, response.response) is current_profile:  # Flask takes a proxy for the parts of a body
            raise ConfigurationError(HINT)
        lookup = current_lookup(self._attribute)
        if lookup is not None:
            headers = lookup.personal_headers(response.headers.items())
            if headers is not None:
                response.headers = Headers(headers)
            if response.is_streamed and not lookup.resolved:
                lookup.hold_scope()
            response.call_on_close(lookup.end)  # a stream reads the profile after the end of the request context
        return response

    def _renew(self, app: Flask, **_: object) -> None:
        """Handle Flask-Login's signals: reset the request's lookup."""
        lookup = current_lookup(self._attribute)
        if lookup is not None:
            lookup.renew()

    def _teardown(self, error: BaseException | None) -> None:
        lookup = current_lookup(self._attribute)
        if lookup is not None and not lookup.headers_sent:
            lookup.end()

    def _template_context(self) -> dict[str, Any]:
        lookup = current_lookup(self._attribute)
        return {} if lookup is None else {self._attribute: TemplateProfile(lookup.profile)}

    def _lookup(self) -> FlaskLookup:
        """Return the lookup of this request, also before Flask's `request_started`."""
        return current_lookup(self._attribute) or FlaskLookup(self._config, self._attribute)


def refresh_profile(*, attribute: str = "profile") -> Profile:
    """Look up the profile again, for the person now signed in. Never raises.

    Call it after a view has signed a person in or out through `flask.session`, or has switched users; until then, the
    profile is that of the previous person. `current_profile` and `flask.g.profile` are updated. It is not needed after
    Flask-Login's `login_user()` and `logout_user()`.

    Args:
        attribute: the `attribute` of the `ProfileEnrich`. Default `"profile"`.

    Returns:
        The profile; empty and falsy if nobody is signed in, or there is none.
    """
    lookup = current_lookup(attribute)
    if lookup is None:
        return Profile(reason=Reason.NOT_LOOKED_UP)
    return lookup.refresh()


def _sign_in_signals() -> list[Any]:
    try:
        import flask_login
    except ImportError:
        return []
    return [flask_login.user_logged_in, flask_login.user_logged_out]


def _explain(app: Flask, exception: BaseException, **_: object) -> None:
    explain_encoding(exception)


def _current() -> Profile:
    lookup = _current_lookup()
    return Profile(reason=Reason.NOT_LOOKED_UP) if lookup is None else lookup.profile


def _current_lookup() -> FlaskLookup | None:
    extension: ProfileEnrich | None = current_app.extensions.get("profile_enrich.profile")
    if extension is not None:
        return extension._lookup()
    if _once.first("missing"):
        logger.warning("current_profile is empty: add ProfileEnrich to the application")
    return None


class ProfileProxy(LocalProxy[Profile]):
    """A proxy that is pickled as its profile, for caches and task queues."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self._get_current_object().__reduce__()


current_profile: Profile = cast(Profile, ProfileProxy(_current))
"""The profile of the request under way; outside of a request it raises `RuntimeError`, as Flask's own proxies do."""


def profile_required(view: View) -> View:
    """Decorator of views that rejects requests without a profile.

    The status is 401 if nobody is signed in, 403 without consent or for an excluded profile, 404 without a profile, 503
    if the source is unavailable.

    Args:
        view: a view function; put the route's decorator above this one.

    Returns:
        The view, decorated.
    """

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        lookup = _current_lookup()
        if lookup is None:
            raise ConfigurationError("profile_required needs ProfileEnrich on the application")
        try:
            lookup.require()
        except ProfileRequired as error:
            abort(error.status_code, error.detail)
        return current_app.ensure_sync(view)(*args, **kwargs)

    return cast(View, guarded)
