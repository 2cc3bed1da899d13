# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# Messages have any type, and the engine's types are not available here.
"""FastStream middleware: the customer's profile for every message of Kafka, NATS, RabbitMQ, Redis and other brokers.

```python
broker = NatsBroker(middlewares=[MessageProfiles(client=profiles, key="user_id")])

@broker.subscriber("orders")
async def handle(order: Order, profile: MessageProfile) -> None: ...
```

Reference: FastStream 0.7, "Middlewares" and "Context".
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, cast

from .._utils.deadline import Deadline
from .._utils.log_once import LogOnce
from .._utils.optional_import import import_extra
from .._utils.validation import check_number
from ..client.client import ProfileClient
from ..errors import ConfigurationError, InvalidKeyError, MissingKeyError, ProfileEnrichError
from ..profile import Profile, ProfileKey, Reason, Status
from .keys import key_of

_faststream = import_extra("faststream", "the FastStream middleware", "faststream")

__all__ = ["MessageKey", "MessageProfile", "MessageProfiles", "from_header"]

logger = logging.getLogger("profile_enrich")

MessageKey = Callable[[Any], Any]
"""A function, async or not, that takes FastStream's message and returns the key of its profile, or `None`."""

MessageProfile = Annotated[Profile, _faststream.Context("profile")]
"""The type of a handler's `profile` parameter: the profile of the message."""


class MessageProfiles:
    """Look up the profile of each message and pass it to the handler. Add it to the `middlewares` of any broker.

    If a lookup fails, the message is handled with a stale profile or an empty one. A fresh profile is passed without
    waiting. Message and acknowledgement are not changed.

    A batch handler gets a list of profiles in the order of the messages.

    Args:
        client: the client.
        key: the name of a field of the message's body (a JSON object); or a callable such as `from_header("user-id")`
            that takes FastStream's message and returns a key or `None` (for a batch, a list of them). It may be async.
            See `key_of` for valid keys.
        budget: the longest that a message waits for its profile, in seconds; `None` waits for the client's `deadline`.
            Default 1, which limits the delay of the queue.
        name: the name in FastStream's context. Default `"profile"`; for another name, declare the parameter as
            `Annotated[Profile, Context("other")]`.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """

    def __init__(
        self, *, client: ProfileClient, key: str | MessageKey, budget: float | None = 1.0, name: str = "profile"
    ) -> None:
        if not isinstance(client, ProfileClient):
            raise ConfigurationError(f"client must be a ProfileClient, not {type(client).__name__}")
        if not (isinstance(key, str) and key) and not callable(key):
            raise ConfigurationError("key must be the name of a field, or callable, e.g. from_header('user-id')")
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigurationError("name must be a name that a handler's parameter could have, e.g. 'profile'")
        self._client = client
        self._key = key
        self._budget = None if budget is None else check_number("budget", budget)
        self._name = name
        self._once = LogOnce()

    def __call__(self, msg: Any, /, *, context: Any) -> Any:
        """Called by the broker for each message."""
        return _Message(msg, context=context, plan=self)

    async def profile_of(self, message: Any) -> Profile | list[Profile]:
        """Return the profile of a message, or the profiles of a batch. Never raises."""
        end = None if self._budget is None else Deadline(self._budget)
        try:
            keys, batch = await self._keys(message, end)
            profiles = await self._profiles([self._asked(value) for value in keys], end)
            return profiles if batch else profiles[0]
        except Exception as error:  # noqa: BLE001  # whatever breaks, the message is handled
            self._say(error)
            return _unavailable(error)

    async def _keys(self, message: Any, end: Deadline | None) -> tuple[list[Any], bool]:
        """Return the raw key of a message, or those of a batch; and whether it is a batch."""
        if isinstance(self._key, str):
            body: Any = await message.decode()
            if not isinstance(body, list):  # a list in a field is not a batch
                return [_field(body, self._key)], False
            items: list[Any] = body
            return [_field(item, self._key) for item in items], True
        found = self._key(message)
        if inspect.isawaitable(found):
            async with asyncio.timeout(None if end is None else end.remaining()):
                found = await found
        return (found, True) if isinstance(found, list) else ([found], False)

    def _asked(self, value: Any) -> str | ProfileKey | Profile:
        """Return the key for the client; or an empty profile with the reason, if there is no key."""
        try:
            return key_of(value)
        except MissingKeyError:
            return self._client.skip(Reason.ANONYMOUS)
        except InvalidKeyError as error:
            return _unavailable(error)

    async def _profiles(self, asked: list[str | ProfileKey | Profile], end: Deadline | None) -> list[Profile]:
        budget = None if end is None else end.remaining()
        if len(asked) == 1 and not isinstance(asked[0], Profile):
            return [await self._client.lookup(asked[0], budget=budget)]
        keys = [key for key in asked if not isinstance(key, Profile)]
        profiles = await self._client.get_many(keys, budget=budget) if keys else {}
        return [key if isinstance(key, Profile) else profiles[key] for key in asked]

    def _say(self, error: Exception) -> None:
        """Log each kind of error once: its location and type, without its text, which may quote the message."""
        if self._once.first(type(error)):
            trace = "".join(traceback.format_tb(error.__traceback__)).rstrip()
            logger.error(
                "finding a message's key raised %s; the message is handled without a profile\n%s",
                type(error).__name__,
                trace,
            )


_Base: Any = _faststream.BaseMiddleware


class _Message(_Base):  # type: ignore[misc]  # its types are not seen here
    """The middleware of one message."""

    def __init__(self, msg: Any, /, *, context: Any, plan: MessageProfiles) -> None:
        super().__init__(msg, context=context)
        self._plan = plan

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: Any) -> Any:
        """Handle the message with its profile in the context."""
        profile = await self._plan.profile_of(msg)
        with self.context.scope(self._plan._name, profile):
            return await call_next(msg)


def from_header(name: str) -> MessageKey:
    """Return a function that reads the key from a header of the message, or of each message of a batch.

    Raises:
        ConfigurationError: the name is empty.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError("from_header takes the name of a header")

    def key(message: Any) -> Any:
        if message.batch_headers:
            return [headers.get(name) for headers in message.batch_headers]
        return message.headers.get(name)

    return key


def _field(body: Any, name: str) -> Any:
    return cast("Mapping[str, Any]", body).get(name) if isinstance(body, Mapping) else None


def _unavailable(error: Exception) -> Profile:
    status = Status.TIMEOUT if isinstance(error, TimeoutError) else Status.ERROR
    known = error if isinstance(error, ProfileEnrichError) else None
    return Profile(status=status, reason=Reason.UNAVAILABLE, error=known)
