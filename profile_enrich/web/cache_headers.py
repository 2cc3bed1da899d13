"""Cache headers of personalised responses (RFC 9111; RFC 9213 for CDNs)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["Headers", "is_plain", "personal_lines", "personalise"]

Headers = list[tuple[bytes, bytes]]

# Possessive, and only from the start of a word: otherwise some malformed kilobytes would take seconds.
_DIRECTIVE = re.compile(rb"""\s*+(?<![^\s,=])([^\s,=]++)\s*+(=\s*+(?:"(?:[^"\\]|\\.)*+"|[^,]*+))?\s*+(?:,|$)""")

_SHARED = frozenset({b"public", b"s-maxage"})

_HARMLESS = frozenset(
    {b"content-length", b"content-type", b"set-cookie", b"location", b"content-language", b"content-encoding", b"date"}
)
"""Names of headers without a meaning for caches, in their usual spelling."""

_PRIVATE = (b"cache-control", b"private")

_TARGETED = frozenset(
    {
        b"surrogate-control",  # Edge Architecture: Varnish, Fastly, Akamai, Squid, Azure's Edgio
        b"edge-control",  # Akamai
        b"x-litespeed-cache-control",
        b"x-litespeed-tag",
        b"x-accel-expires",  # nginx, where it overrides Cache-Control and Expires
        b"x-ec-cache-control",  # Edgio (EdgeCast)
    }
)
"""Fields that tell one kind of shared cache what to keep, and outweigh `Cache-Control` there. Those of RFC 9213 end in
`-cache-control`: `CDN-` (Cloudflare, Vercel, Netlify, Google Cloud), `Cloudflare-CDN-`, `Vercel-CDN-`, `Netlify-CDN-`,
`Akamai-`. CloudFront, Azure Front Door and Bunny have none of their own: `Cache-Control` and `Expires` count there."""

_ZERO = re.compile(rb"\s*@?\s*0\s*")


def is_plain(headers: Headers) -> bool:
    """Return whether these headers do not concern caches, so that only `personal_lines` must be added."""
    for name, _ in headers:  # noqa: SIM110  # `all` of a generator takes three times as long
        if name not in _HARMLESS:
            return False
    return True


def personal_lines(vary_on: Sequence[str]) -> Headers:
    """Return the headers that `personalise` adds to a response without cache headers."""
    return personalise((), vary_on)[0]


def personalise(headers: Iterable[tuple[bytes, bytes]], vary_on: Sequence[str]) -> tuple[Headers, bool]:
    """Return the headers of a personal response.

    `Vary` names the request headers that determine the identity, and `Cache-Control` excludes shared caches. Directives
    that forbid caching are kept; those that allow shared caching are removed.

    Args:
        headers: the headers of the ASGI response start message.
        vary_on: names of request headers.

    Returns:
        The new headers, and whether the response had allowed shared caching.
    """
    result: Headers = []
    vary_lines: list[int] = []
    control_lines: list[int] = []
    invited = False
    for name, value in headers:
        lower = name.lower()
        # Targeted fields override Cache-Control in their CDNs, so keep only those that forbid caching.
        if lower in _TARGETED or lower.endswith(b"-cache-control"):
            if _keeps_out(lower, value):
                result.append((name, value))
            else:
                invited = True
            continue
        if lower == b"expires":
            value = b"0"  # the only field that HTTP/1.0 caches and some CDN configurations use
        elif lower == b"vary":
            vary_lines.append(len(result))
        elif lower == b"cache-control":
            control_lines.append(len(result))
        result.append((name, value))
    invited = _keep_private(result, control_lines) or invited
    _vary(result, vary_lines, vary_on)
    return [header for header in result if header[1] or header[0].lower() != b"cache-control"], invited


def _keeps_out(name: bytes, value: bytes) -> bool:
    """Return whether a targeted field forbids caching."""
    if name == b"x-accel-expires":
        return _ZERO.fullmatch(value) is not None
    return any(match[1].lower() == b"no-store" for match in _DIRECTIVE.finditer(value))


def _keep_private(result: Headers, lines: list[int]) -> bool:
    """Make the `Cache-Control` lines private, and return whether they allowed shared caching."""
    invited = False
    closed = False
    for line in lines:
        name, value = result[line]
        kept: list[bytes] = []
        changed = False
        for match in _DIRECTIVE.finditer(value):
            directive = match[1].lower()
            if directive in _SHARED:
                invited = changed = True
                continue
            if directive == b"private" and match[2]:
                changed = True  # private="field" applies only to that field
                continue
            closed = closed or directive in (b"private", b"no-store")
            kept.append(match[0].strip().rstrip(b",").rstrip())
        if changed:
            result[line] = (name, b", ".join(kept))
    if closed:
        return invited
    if lines:
        name, value = result[lines[0]]
        result[lines[0]] = (name, b"private, " + value if value.strip() else b"private")
    else:
        result.append(_PRIVATE)
    return invited


def _vary(result: Headers, lines: list[int], vary_on: Sequence[str]) -> None:
    """Add the names that are missing in `Vary`."""
    present = {token.strip().lower() for line in lines for token in result[line][1].split(b",")}
    if b"*" in present:
        return
    missing: list[bytes] = []
    for header in vary_on:
        name = header.encode("latin-1")
        if name.lower() not in present:
            present.add(name.lower())
            missing.append(name)
    if not missing:
        return
    if lines:
        name, value = result[lines[-1]]
        tokens = [value.strip().rstrip(b",")] if value.strip(b" \t,") else []
        result[lines[-1]] = (name, b", ".join([*tokens, *missing]))
    else:
        result.append((b"vary", b", ".join(missing)))
