"""WSGI middleware: the profile in any WSGI application (PEP 3333).

```python
app = WSGIProfileMiddleware(app, client=profiles, identify=from_cookie("visitor"))
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from .client.client import ProfileClient
from .errors import ConfigurationError
from .profile import Profile, Reason
from .web.blocking_lookup import BlockingConfig, BlockingLookup
from .web.encoding_hint import explain_encoding
from .web.native_request import NATIVE_REQUEST, scope_of_environ

__all__ = ["PROFILE", "WSGIProfileMiddleware", "profile_of", "refresh_profile"]

PROFILE = "profile_enrich.profile"
"""The key of the profile in a request's `environ`."""

Environ = dict[str, Any]

StartResponse = Callable[..., Callable[[bytes], object]]

_LOOKUP = "profile_enrich.lookup"

WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class WSGIProfileMiddleware:
    """Attach the profile of the person in session to each request, as `environ["profile_enrich.profile"]`.

    The lookup runs when the profile is first read, in the request's thread. If it fails, the profile is empty and the
    page is still served. A page that reads the profile gets `Vary` and `Cache-Control: private`.

    Args:
        app: the WSGI application.
        client: the client, which all request threads share; it runs on one event loop in a separate thread.
        identify: the identity function, such as `from_cookie(...)`, or a function that takes the `environ` and returns
            a key or `None`.
        budget: the longest that a page waits for a profile, in seconds; `None` waits for the client's `deadline`.
            Default 0.05.
        consent: whether the lookup is allowed: `honour_gpc()`, or a function that takes the `environ` and returns a
            bool.
        exclude: path prefixes without lookups, compared by whole segments. `SCRIPT_NAME` is not part of the path.
        vary_on: the request headers that determine the identity; by default those of `identify`, or `Cookie` for
            your own function.
        server_timing: whether to add a `Server-Timing` header with the lookup's status and duration. Default false.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        client: ProfileClient,
        identify: Callable[[Any], Any],
        budget: float | None = 0.05,
        consent: Callable[[Any], Any] | None = None,
        exclude: Iterable[str] = (),
        vary_on: Iterable[str] | None = None,
        server_timing: bool = False,
    ) -> None:
        if not callable(app):
            raise ConfigurationError(f"app must be a WSGI application, not {type(app).__name__}")
        self.app = app
        self._config = BlockingConfig(
            client=client,
            identify=identify,
            budget=budget,
            consent=consent,
            exclude=exclude,
            vary_on=vary_on,
            server_timing=server_timing,
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        lookup = BlockingLookup(self._config, lambda: {**scope_of_environ(environ), NATIVE_REQUEST: environ})
        if self._config.exclude and self._config.excludes(environ.get("PATH_INFO", "")):
            lookup.skip(Reason.NOT_LOOKED_UP)
        environ[PROFILE], environ[_LOOKUP] = lookup.profile, lookup

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            changed = lookup.personal_headers(headers)
            # PEP 3333 requires a list, and servers check whether exc_info was passed.
            return start_response(status, headers if changed is None else changed, *([exc_info] if exc_info else []))

        try:
            body = self.app(environ, start)
        except BaseException as error:
            lookup.end()
            explain_encoding(error)
            raise
        if type(body) is environ.get("wsgi.file_wrapper"):
            return body  # keep the server's own file wrapper, so that it can use sendfile
        return _Body(body, lookup)

    def close(self) -> None:
        """Close the client and end its thread. Not needed at the end of the process."""
        self._config.client.close()


class _Body:
    """A response body; closing it ends the request."""

    def __init__(self, body: Iterable[bytes], lookup: BlockingLookup) -> None:
        self._body = body
        self._lookup = lookup

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._lookup.end()


def profile_of(environ: Environ) -> Profile:
    """Return the profile of a request; an empty one if `WSGIProfileMiddleware` is not installed.

    Args:
        environ: the request's `environ`.
    """
    profile = cast("Profile | None", environ.get(PROFILE))
    return Profile(reason=Reason.NOT_LOOKED_UP) if profile is None else profile


def refresh_profile(environ: Environ) -> Profile:
    """Look up the person who is signed in now, after a sign-in, a sign-out or a switch of users. Never raises.

    What `profile_of` has returned shows the new answer, since it is the same object.

    Args:
        environ: the WSGI environment of the request.

    Returns:
        The profile; an empty one where `WSGIProfileMiddleware` is not installed.
    """
    lookup = cast("BlockingLookup | None", environ.get(_LOOKUP))
    return profile_of(environ) if lookup is None else lookup.refresh()
