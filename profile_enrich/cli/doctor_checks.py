"""The checks of `doctor`. Findings hold no secrets and no personal data."""

from __future__ import annotations

import difflib
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from .._utils.deadline import Deadline
from ..errors import (
    ConfigurationError,
    ProfileEnrichError,
    SourceAuthError,
    SourceConnectionError,
    SourceError,
    SourceRateLimited,
    SourceTimeout,
    SourceUnavailable,
)
from ..profile import ProfileKey
from ..sources.amperity import AmperitySource
from ..sources.base import Found, ProfileSource
from ..sources.bearer_tokens import token_expiry
from ..sources.census import CensusSource
from ..sources.http import HttpRequest, open_transport
from ..sources.http.vendor_api import USER_AGENT
from .open_source import make_source, open_store
from .source_options import Kind, Settings

__all__ = ["Finding", "examine"]

Verdict = Literal["ok", "warning", "wrong", "skipped"]

_SKEW_WARNING, _SKEW_WRONG = 30.0, 300.0
_BUDGET = 0.05
"""The default budget of a page, in seconds (`ProfileMiddleware(budget=…)`)."""
_NOBODY = "profile-enrich-doctor"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        check: the name of the check.
        verdict: the verdict.
        found: the observation.
        fix: the remedy, if any.
    """

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


async def examine(settings: Settings, kind: Kind, *, calls: int) -> AsyncIterator[Finding]:
    """Run all checks for this source, and yield each result; after a failure, dependent checks are skipped.

    Args:
        settings: the options.
        kind: the kind of source.
        calls: the number of calls to measure the latency.
    """
    if kind == "store":
        async for finding in _examine_store(settings, calls):
            yield finding
        return
    try:
        source = make_source(settings, kind, need_collection=False)
    except ConfigurationError as error:
        yield Finding("settings", "wrong", error.message, "Set the option or variable that it names.")
        return
    assert isinstance(source, CensusSource | AmperitySource)  # noqa: S101  # those that speak HTTP
    try:
        yield Finding("settings", "ok", f"{source.name} at {source.base_url} through {source.transport_name}")
        if kind == "census" or settings.token is not None:
            yield _shape(settings, kind)
        reached = False
        async for finding in _reach(settings, source.base_url):
            reached = reached or (finding.check == "reachable" and finding.verdict != "wrong")
            yield finding
        if not reached:
            yield Finding("credentials, entity, latency", "skipped", "the API cannot be reached")
            return
        listed, finding = await _credentials(source, settings.timeout)
        yield finding
        if listed is None:
            refused = finding.check == "credentials"
            what = "entity, latency" if refused else "credentials, entity, latency"
            yield Finding(what, "skipped", "the credentials do not work" if refused else "the API answers nothing else")
            return
        finding = _collection(settings, kind, listed)
        yield finding
        if finding.verdict == "ok":
            yield await _measure(make_source(settings, kind), calls, settings.timeout)
        else:
            yield Finding("latency", "skipped", f"no {_word(kind)} to ask")
    finally:
        await source.aclose()


def _word(kind: Kind) -> str:
    return "index" if kind == "amperity" else "entity"


def _shape(settings: Settings, kind: Kind) -> Finding:
    """Describe a key or token without sending it."""
    secret = (settings.api_key if kind == "census" else settings.token) or ""
    what = "API key" if kind == "census" else "token"
    if kind == "census":
        return Finding(what, "ok", f"is set ({len(secret)} characters)")
    expires = token_expiry(secret)
    if expires is None:
        return Finding(what, "ok", "is set; it does not say when it expires")
    left = expires - time.time()
    if left <= 0:
        return Finding(what, "wrong", f"expired {_span(-left)} ago", "Make a new one, or use --client-id and its like.")
    if left < 3600:
        fix = "Use --client-id, --client-secret and --token-url: such tokens are renewed by themselves."
        return Finding(what, "warning", f"expires in {_span(left)}", fix)
    return Finding(what, "ok", f"expires in {_span(left)}")


def _span(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


async def _reach(settings: Settings, base_url: str) -> AsyncIterator[Finding]:
    """Send one request without credentials, to check the connection and the clock."""
    transport = open_transport("auto" if settings.transport == "auto" else _named(settings.transport))
    request = HttpRequest("GET", base_url, {"accept": "application/json", "user-agent": USER_AGENT})
    began = time.perf_counter()
    try:
        response = await transport.send(request, deadline=Deadline(settings.timeout))
    except SourceError as error:
        yield Finding("reachable", "wrong", error.message or error.code, _unreachable(error))
        return
    finally:
        await transport.aclose()
    took = (time.perf_counter() - began) * 1000
    if 300 <= response.status < 400:
        fix = "Redirects are not followed: correct --base-url (the scheme, the host, a path that is missing)."
        yield Finding("reachable", "wrong", f"it redirects (status {response.status})", fix)
        return
    if response.status >= 500:
        fix = "The API is down, or a proxy before it; try again, then look at the vendor's status page."
        yield Finding("reachable", "warning", f"it answers with status {response.status}", fix)
    else:
        yield Finding("reachable", "ok", f"answers in {took:.0f} ms, connection included")
    yield _clock(response.headers.get("date", ""))


def _named(name: str) -> Literal["aiohttp", "httpx2", "httpx"]:
    if name == "aiohttp":
        return "aiohttp"
    return "httpx2" if name == "httpx2" else "httpx"


def _unreachable(error: SourceError) -> str:
    if isinstance(error, SourceTimeout):
        return "A firewall, or a proxy that is needed (HTTPS_PROXY)? Or more time: --timeout."
    if isinstance(error, SourceConnectionError):
        return "Check --base-url or --region, that the server runs, the network, the proxy, the TLS certificate."
    return "The response is not valid HTTP: check --base-url."


def _clock(date: str) -> Finding:
    try:
        skew = time.time() - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return Finding("clock", "skipped", "the API sends no valid Date header")
    how = f"this machine is {_span(abs(skew))} {'ahead' if skew > 0 else 'behind'}"
    fix = "Set the clock (NTP): tokens are refused, or not renewed in time, when it is wrong."
    if abs(skew) >= _SKEW_WRONG:
        return Finding("clock", "wrong", how, fix)
    if abs(skew) >= _SKEW_WARNING:
        return Finding("clock", "warning", how, fix)
    return Finding("clock", "ok", "agrees with the API's")


async def _credentials(
    source: CensusSource | AmperitySource, seconds: float
) -> tuple[list[tuple[str, str]] | None, Finding]:
    try:
        if isinstance(source, CensusSource):
            listed = [(str(each.id), each.name) for each in await source.entities(timeout=seconds)]
        else:
            listed = [(each.id, each.name) async for each in source.indexes(limit=100, timeout=seconds)]
    except SourceAuthError as error:
        return None, Finding("credentials", "wrong", str(error), _refused(source, error.status))
    except SourceError as error:
        fix = "Check --base-url: is this the right API?"
        if isinstance(error, SourceRateLimited):
            fix = "Too many requests: try again later."
        elif isinstance(error, SourceTimeout | SourceConnectionError | SourceUnavailable):
            fix = "The API is down, or a proxy before it; try again, then look at the vendor's status page."
        return None, Finding("API", "wrong", str(error), fix)
    return list(dict.fromkeys(listed)), Finding("credentials", "ok", "accepted")


def _refused(source: CensusSource | AmperitySource, status: int | None) -> str:
    if isinstance(source, CensusSource):
        return (
            "Copy the workspace's key again; an EU key works only with --region eu, and a US key only with --region us."
        )
    if status == 403:
        return "Check --tenant (a sandbox has its own), and that the API key's policy allows reading profiles."
    return "Make a new token (they expire), or use --client-id; a sandbox needs keys of its own."


def _collection(settings: Settings, kind: Kind, listed: list[tuple[str, str]]) -> Finding:
    word, given = _word(kind), settings.index if kind == "amperity" else settings.entity
    names = [name for _, name in listed]
    seen = f"the key sees {', '.join(names[:20])}" if names else "the key sees none"
    if given is None:
        return Finding(word, "wrong", f"not said; {seen}", f"Set PROFILE_ENRICH_{word.upper()} or --{word}.")
    matches = [id for id, name in listed if name == given] or [id for id, _ in listed if id == given]
    if len(matches) == 1:
        return Finding(word, "ok", f"{given} is there (id {matches[0]})")
    if matches:
        return Finding(word, "wrong", f"{len(matches)} have the name {given}", f"Give the id: {', '.join(matches)}.")
    close = difflib.get_close_matches(given.lower(), [name.lower() for name in names], n=1)
    hint = next((name for name in names if close and name.lower() == close[0]), None)
    fix = f"Did you mean {hint}?" if hint else "Check the name, and the workspace or tenant of the key."
    return Finding(word, "wrong", f"{given} is not there; {seen}", fix)


async def _measure(source: ProfileSource, calls: int, seconds: float) -> Finding:
    """Measure lookups of an unknown id, without the first one, which opens the connection."""
    times: list[float] = []
    try:
        for _ in range(calls + 1):
            began = time.perf_counter()
            result = await source.fetch(ProfileKey(_NOBODY), deadline=Deadline(seconds))
            times.append(time.perf_counter() - began)
            if isinstance(result, Found):
                break
    except ProfileEnrichError as error:
        return Finding("latency", "wrong", str(error), "A lookup failed; see the documentation of this error.")
    finally:
        await source.aclose()
    return _judge(times[1:] or times, lambda seconds: f"{seconds * 1000:.1f} ms")


def _judge(times: list[float], unit: Callable[[float], str]) -> Finding:
    median, worst = statistics.median(times), max(times)
    found = f"{len(times)} lookups: median {unit(median)}, slowest {unit(worst)}"
    if median > _BUDGET:
        fix = (
            f"Slower than the middleware's default budget of {_BUDGET * 1000:.0f} ms: first visits will be anonymous. "
            "Raise `budget`, use mode='prefetch', or look up nearer to the API."
        )
        return Finding("latency", "warning", found, fix)
    return Finding("latency", "ok", found)


async def _examine_store(settings: Settings, calls: int) -> AsyncIterator[Finding]:
    try:
        with open_store(settings) as store:
            listed = [(str(each.id), each.name) for each in store.collections()]
            rows = {each.name: each.rows for each in store.collections()}
            yield Finding("settings", "ok", f"store at {store.path}, generation {store.generation}")
    except ProfileEnrichError as error:
        fix = "Build one: profile-enrich serve --store PATH --data FILE --entity NAME --id COLUMN."
        yield Finding("settings", "wrong", error.message, fix)
        return
    finding = _collection(settings, "store", listed)
    yield finding
    if finding.verdict != "ok":
        yield Finding("latency", "skipped", "no entity to look up")
        return
    yield Finding(
        "records", "ok" if any(rows.values()) else "warning", f"{sum(rows.values()):,} in {len(rows)} entities"
    )
    yield await _measure(make_source(settings, "store"), calls, settings.timeout)
