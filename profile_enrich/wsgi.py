"""The profile in any WSGI application (PEP 3333).

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
from .web.native_request import NATIVE_REQUEST, scope_of_environ

__all__ = ["PROFILE", "WSGIProfileMiddleware", "profile_of"]

PROFILE = "profile_enrich.profile"
"""Where the profile is in the `environ` of a request."""

Environ = dict[str, Any]

StartResponse = Callable[..., Callable[[bytes], object]]

WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class WSGIProfileMiddleware:
    """Attach the profile of the person in session to each request, as `environ["profile_enrich.profile"]`.

    The lookup is made where the profile is first read, in the thread that serves the request. Whatever goes wrong, the
    page is served. A page that reads the profile gets `Vary` and `Cache-Control: private`.

    Args:
        app: the WSGI application.
        client: makes the lookups, on one event loop in a thread of its own, however many threads serve requests.
        identify: says who is in session: `from_cookie(...)` and its like, or a function that takes the `environ` and
            returns a key or `None`.
        budget: seconds that a page waits for a profile at most; `None` waits for the client's `deadline`. Default 0.05.
        consent: says whether the lookup is allowed: `honour_gpc()`, or a function that takes the `environ` and returns
            `True` for yes.
        exclude: path prefixes without a lookup, without `SCRIPT_NAME`. Whole segments are compared.
        vary_on: request headers that the identity comes from; by default what `identify` knows, `Cookie` for a function
            of your own.
        server_timing: adds a `Server-Timing` header with the lookup's status and duration. Default false.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
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
        environ[PROFILE] = lookup.profile

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            changed = lookup.personal_headers(headers)
            # PEP 3333 wants a list, and servers look whether exc_info was given at all.
            return start_response(status, headers if changed is None else changed, *([exc_info] if exc_info else []))

        try:
            body = self.app(environ, start)
        except BaseException:
            lookup.end()
            raise
        if type(body) is environ.get("wsgi.file_wrapper"):
            return body  # the server sends the file itself where it is given its own wrapper
        return _Body(body, lookup)

    def close(self) -> None:
        """Close the client, and end its thread. A process that ends needs no such call."""
        self._config.client.close()


class _Body:
    """The body of a response. The request ends when the server closes it."""

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
    """The profile of a request; an empty one where `WSGIProfileMiddleware` is not installed.

    Args:
        environ: of the request.
    """
    profile = cast("Profile | None", environ.get(PROFILE))
    return Profile(reason=Reason.NOT_LOOKED_UP) if profile is None else profile
