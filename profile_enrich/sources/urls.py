"""Validation and encoding of URLs and header values."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from urllib.parse import quote, urlsplit

from starlette.datastructures import Secret

from .._utils.validation import check_bool, check_number
from ..errors import ConfigurationError, InvalidKeyError

__all__ = ["check_base_url", "check_header", "check_timeout", "is_loopback", "path_segment", "query_value"]

_UNSAFE = re.compile(r"[^\x21-\x7e]")
_NOTHING = ""  # `quote` keeps letters, digits and -._~ (RFC 3986, unreserved); everything else is percent-encoded


def query_value(value: str, what: str = "the key") -> str:
    """Percent-encode a value for a query string, so that it cannot end or start a parameter.

    Raises:
        InvalidKeyError: the value is not a string, or not valid Unicode.
    """
    if not isinstance(value, str):
        raise InvalidKeyError(f"{what} must be a string, not {type(value).__name__}")
    encoded: str | None = None
    with contextlib.suppress(UnicodeEncodeError):
        encoded = quote(value, safe=_NOTHING)
    if encoded is None:  # Raised outside of the handler, because the UnicodeEncodeError quotes the value.
        raise InvalidKeyError(f"{what} must be valid Unicode; this one holds a lone surrogate")
    return encoded


def path_segment(value: str, what: str = "the key") -> str:
    """Percent-encode a value as one path segment.

    Raises:
        InvalidKeyError: the value is empty, `.` or `..`. Clients and proxies resolve the last two, even
            percent-encoded, and would request another resource.
    """
    encoded = query_value(value, what)
    if encoded in ("", ".", ".."):
        raise InvalidKeyError(f"{what} cannot be looked up by id: it is empty, or means another place in a URL")
    return encoded


def check_base_url(url: str, *, argument: str = "base_url", allow_insecure_http: bool = False) -> str:
    """Validate a base URL and strip trailing slashes.

    Raises:
        ConfigurationError: the URL is not an absolute `https://` URL, or it has credentials, a query or a fragment.
            Plain `http://` is accepted for this machine, or if allowed.
    """
    check_bool("allow_insecure_http", allow_insecure_http)
    if not isinstance(url, str) or _UNSAFE.search(url) or "\\" in url:
        raise ConfigurationError(f"{argument} must be a URL of printable ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(
            f"{argument} must begin with https:// and name a host, e.g. https://api.example.com/v1"
        )
    if "@" in parts.netloc:
        raise ConfigurationError(f"{argument} must not hold a user name or password; pass credentials as arguments")
    if "?" in url or "#" in url:
        raise ConfigurationError(f"{argument} must not have a query or a fragment")
    if {".", ".."} & set(parts.path.split("/")):
        raise ConfigurationError(f"{argument} must not have . or .. in its path")
    if parts.scheme == "http" and not allow_insecure_http and not is_loopback(host):
        raise ConfigurationError(
            f"{argument} is plain http:// to another machine, which would send keys and profiles unencrypted; use "
            "https://, or pass allow_insecure_http=True if the network itself is trusted"
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_header(value: str | Secret, argument: str) -> str:
    """Validate a credential or name for use in a header.

    Raises:
        ConfigurationError: the text is empty or holds a space, a line break, a control character or a non-ASCII
            character.
    """
    text = value._value if isinstance(value, Secret) else value  # `str(Secret(None))` is a TypeError
    if not isinstance(text, str):
        raise ConfigurationError(f"{argument} must be a string, not {type(text).__name__}")
    if not text:
        raise ConfigurationError(f"{argument} must not be empty")
    if _UNSAFE.search(text):
        raise ConfigurationError(
            f"{argument} holds a space, a line break or another character that a header cannot carry; if it was read "
            "from a file, strip the end of the line"
        )
    return text


def check_timeout(timeout: float) -> float:
    """Seconds.

    Raises:
        ConfigurationError: not a positive number.
    """
    return check_number("timeout", timeout, positive=True)
