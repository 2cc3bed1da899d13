"""Proxies from the environment, with the same rules for all HTTP clients."""

from __future__ import annotations

import urllib.request
from urllib.parse import urlsplit

from ...errors import ConfigurationError
from ..urls import is_loopback

__all__ = ["Proxies"]


class Proxies:
    """The current values of `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (in either case).

    Requests to this machine never use a proxy. Otherwise the rules are those of the standard library: `NO_PROXY` lists
    hosts and domain suffixes, or is `*`; in a CGI process `HTTP_PROXY` is ignored, because a visitor could set it.
    """

    __slots__ = ("_by_origin", "_table")

    def __init__(self, *, read: bool = True) -> None:
        self._table = urllib.request.getproxies_environment() if read else {}
        self._by_origin: dict[str, str | None] = {}

    def of(self, url: str) -> str | None:
        """Return the URL of the proxy for a request to `url`, or `None`.

        Raises:
            ConfigurationError: the variable names a proxy that is not `http://` or `https://`.
        """
        if not self._table:
            return None
        origin = url[: _end_of_origin(url)]
        if origin not in self._by_origin:
            self._by_origin[origin] = self._decide(origin)
        return self._by_origin[origin]

    def _decide(self, origin: str) -> str | None:
        parts = urlsplit(origin)
        proxy = self._table.get(parts.scheme) or self._table.get("all")
        # `proxy_bypass` compares with and without the port, and reads only the environment if variables are set.
        if not proxy or is_loopback(parts.hostname or "") or urllib.request.proxy_bypass(parts.netloc):
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if not proxy.lower().startswith(("http://", "https://")):
            raise ConfigurationError(
                f"the environment names a proxy for {parts.scheme}:// that is not http:// or https://; "
                "set NO_PROXY for the source's host, or hand in an HTTP client that is set up for it"
            )
        return proxy


def _end_of_origin(url: str) -> int:
    slash = url.find("/", url.find("://") + 3)
    return len(url) if slash < 0 else slash
