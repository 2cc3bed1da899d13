"""Selection of the HTTP client."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from ..._utils.validation import check_int
from ...errors import ConfigurationError, MissingExtraError
from .httpx_transport import HandedInHttpx, HttpxTransport
from .messages import MAX_BODY_BYTES, Transport, TransportOptions

# `TransportChoice` is a name, a client of the user, or any object that implements `Transport`.
if TYPE_CHECKING:
    import aiohttp
    import httpx
    import httpx2

    TransportChoice: TypeAlias = (
        Literal["auto", "aiohttp", "httpx2", "httpx"]
        | httpx.AsyncClient
        | httpx2.AsyncClient
        | aiohttp.ClientSession
        | Transport
    )
else:
    TransportChoice = Any

__all__ = ["TransportChoice", "open_transport"]

_BEST_FIRST = ("aiohttp", "httpx2", "httpx")


def open_transport(
    choice: TransportChoice = "auto",
    *,
    options: TransportOptions | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Transport:
    """Make the transport of a source. It connects at the first request.

    Args:
        choice: `"auto"` takes the first one installed of aiohttp, httpx2, httpx (least CPU first).
        options: settings of a client that the transport opens.
        max_body_bytes: the largest response accepted, in bytes after decompression.

    Raises:
        MissingExtraError: the named client is not installed.
        ConfigurationError: `choice` is none of the above, or a limit is invalid.
    """
    check_int("max_body_bytes", max_body_bytes)
    settings = TransportOptions() if options is None else options
    if not isinstance(settings, TransportOptions):
        raise ConfigurationError("options must be TransportOptions(...)")
    if isinstance(choice, str):
        return _by_name(choice, settings, max_body_bytes)
    return _handed_in(choice, options, max_body_bytes)


def _by_name(choice: str, options: TransportOptions, limit: int) -> Transport:
    if choice != "auto" and choice not in _BEST_FIRST:
        names = ", ".join(map(repr, _BEST_FIRST))
        raise ConfigurationError(f"transport must be 'auto', {names} or an HTTP client object")
    if choice == "auto":
        choice = next(name for name in _BEST_FIRST if _installed(name))
    elif not _installed(choice):
        raise MissingExtraError(f"the {choice} transport", choice)
    if choice == "aiohttp":
        from .aiohttp_transport import AiohttpTransport  # an extra

        return AiohttpTransport(options, limit)
    return HttpxTransport(importlib.import_module(choice), options, limit)


def _installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _handed_in(client: object, options: TransportOptions | None, limit: int) -> Transport:
    for name in ("httpx", "httpx2"):
        module: Any = sys.modules.get(name)  # a client object exists only if its module was imported
        if module is not None and isinstance(client, module.AsyncClient):
            _no_options(options)
            return HandedInHttpx(module, client, limit)
        if module is not None and isinstance(client, module.Client):
            raise ConfigurationError(f"transport: a {name}.Client is synchronous; hand in a {name}.AsyncClient")
    module = sys.modules.get("aiohttp")
    if module is not None and isinstance(client, module.ClientSession):
        from .aiohttp_transport import HandedInAiohttp  # an extra

        _no_options(options)
        return HandedInAiohttp(cast("aiohttp.ClientSession", client), limit)
    if isinstance(client, Transport):
        _no_options(options)
        return client
    raise ConfigurationError(
        "transport must be 'auto', 'aiohttp', 'httpx2', 'httpx', or an httpx.AsyncClient, httpx2.AsyncClient or "
        f"aiohttp.ClientSession, not {type(client).__name__}"
    )


def _no_options(options: TransportOptions | None) -> None:
    if options is not None:
        raise ConfigurationError("options apply to a client that the source opens; configure the client that you pass")
