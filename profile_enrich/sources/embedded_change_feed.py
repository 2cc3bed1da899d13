"""Client of the embedded server's change feed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx

from ..errors import ProfileEnrichError, SourceConnectionError, SourceResponseError, SourceTimeout
from ..profile import ProfileKey
from .base import ChangeBatch
from .http import Headers, HttpResponse, TransportOptions
from .http.failures import connection_failed, cut_short, not_connected, unexpected
from .http.json_body import array, decode_json, obj
from .http.proxies import Proxies
from .http.quiet_logging import quiet, silence_loggers
from .http.server_sent_events import EventReader, ServerEvent
from .http.tls import default_tls
from .http.vendor_api import USER_AGENT, HttpApi

__all__ = ["read_changes"]

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 45.0
"""The server sends a heartbeat every 15 seconds; after three missed ones the connection counts as dead."""

_LARGEST_REFUSAL = 64 * 1024


async def read_changes(
    api: HttpApi,
    path: str,
    *,
    headers: Mapping[str, str],
    private: tuple[str, ...],
    after: str | None,
    options: TransportOptions | None,
) -> AsyncGenerator[ChangeBatch]:
    """Stream the changes until the connection ends.

    The feed uses its own connection, separate from those of lookups, and closes it at the end.

    Args:
        api: the API that has the feed.
        path: the path of the feed under the base URL.
        headers: the credentials.
        private: the secrets of this request, redacted from messages.
        after: the id of the last event received.
        options: TLS and proxy settings.

    Raises:
        SourceError: the feed is refused, breaks, misses its heartbeats, or is malformed.
    """
    settings = options or TransportOptions()
    url = api.base_url + path
    sent = {"accept": "text/event-stream", "accept-encoding": "identity", "user-agent": USER_AGENT, **headers}
    if after is not None:
        sent["last-event-id"] = after
    silence_loggers("httpx", "httpcore", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
    reader = EventReader(after or "")
    failure: ProfileEnrichError | None = None
    transport = httpx.AsyncHTTPTransport(
        verify=settings.tls or default_tls(httpx), proxy=Proxies(read=settings.environment).of(url)
    )
    timeouts = {"connect": CONNECT_SECONDS, "read": SILENCE_SECONDS, "write": CONNECT_SECONDS, "pool": CONNECT_SECONDS}
    response: httpx.Response | None = None
    try:
        with quiet():
            response = await transport.handle_async_request(
                httpx.Request("GET", url, headers=sent, extensions={"timeout": timeouts})
            )
            _check(response)
            if response.status_code != 200:
                raise api.failure(await _whole(response), private)
            async for chunk in response.aiter_raw():
                for event in reader.feed(chunk):
                    change = _change(event, reader)
                    if change is not None:
                        yield change
    except ProfileEnrichError:
        raise
    except httpx.TimeoutException:
        failure = SourceTimeout("the change feed sent no heartbeat")
    except httpx.TransportError as error:
        if response is not None:
            failure = cut_short()
        else:
            refused = isinstance(error, httpx.ConnectError)
            failure = not_connected(error) if refused else connection_failed(error)
    except Exception as error:  # noqa: BLE001  # whatever it is, it may hold the URL
        failure = unexpected(error)
    finally:
        with contextlib.suppress(Exception, asyncio.CancelledError):
            if response is not None:
                await response.aclose()
            await transport.aclose()
    if failure is not None:
        raise failure


def _check(response: httpx.Response) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code == 200 and kind != "text/event-stream":
        raise SourceResponseError("the change feed is not a stream of server-sent events")


async def _whole(response: httpx.Response) -> HttpResponse:
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > _LARGEST_REFUSAL:
            raise SourceConnectionError("the change feed was refused with a response that is too large")
    return HttpResponse(response.status_code, Headers(response.headers.raw), body)


def _change(event: ServerEvent, reader: EventReader) -> ChangeBatch | None:
    if event.name == "ready":
        return ChangeBatch(id=event.id, retry=reader.retry)
    if event.name == "reset":
        return ChangeBatch(id=event.id, reset=True, retry=reader.retry)
    if event.name != "changes":  # an event type of a later version
        return None
    keys: list[Any] = array(obj(decode_json(event.data.encode()), "an event").get("keys"), "keys")
    if not all(isinstance(key, str) for key in keys):
        raise SourceResponseError("the change feed is not as documented: a key is not text")
    return ChangeBatch(keys=tuple(ProfileKey(key) for key in keys if key), id=event.id, retry=reader.retry)
