"""`ClientConfig`: the configuration of workers' clients, as plain data without secrets."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sized
from typing import Any, cast

from ..._utils.validation import check_int, check_number
from ...cache.cache_policy import CachePolicy
from ...client.breaker import Breaker
from ...client.client import ProfileClient
from ...client.retry import RetryPolicy
from ...client.source_policy import SourcePolicy
from ...errors import ConfigurationError, SecretByValue
from ...sources.amperity import AmperitySource
from ...sources.bearer_tokens import ClientCredentials
from ...sources.census import CensusSource
from ...sources.memory import MemorySource
from ...sources.store import StoreSource

__all__ = ["ClientConfig", "client_arguments"]

_SECRET_NAME = re.compile(
    r"(^|_)(api_?key|token|jwt|secret|password|passwd|passphrase|credentials?|private_key)$", re.IGNORECASE
)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_USERINFO = re.compile(r"://[^/@\s]*@")

_OWN = ("rate_limit", "max_in_flight")
"""Arguments of the source policy that the job's rate and concurrency determine."""

_OBJECTS: Mapping[str, Callable[..., object]] = {
    "cache_policy": CachePolicy,
    "source_policy": SourcePolicy,
    "breaker": Breaker,
    "retry": RetryPolicy,
}
"""Arguments that are objects, given as a dict of their arguments."""

_CALLABLES = ("source", "storage", "hooks", "timer", "rng", "self")

_SOURCES: Mapping[str, tuple[Callable[..., object], ...]] = {
    "census": (CensusSource,),
    "amperity": (AmperitySource, ClientCredentials),
    "store": (StoreSource,),
}


class ClientConfig:
    """The client configuration of a job's workers. It is immutable; equal ones share one client per process.

    It holds only plain data, so every engine can serialize it. Secrets are given as names of environment variables of
    the workers, and are not sent.

    ```python
    ClientConfig("census", options={"entity": "Users"}, secrets={"api_key": "CENSUS_API_KEY"}, rate=500, workers=4)
    ```

    Args:
        source: `"census"`, `"amperity"` or `"store"`; or a factory `"package.module:function"`, importable on the
            workers. It is called with `options` and the values of `secrets` as keyword arguments, and returns a
            `ProfileSource`.
        options: arguments of `CensusSource`, `AmperitySource` or `StoreSource` as plain data (text, numbers, lists,
            dicts). `"amperity"` also takes `token_url` and `client_id`, for the secret `client_secret`.
        secrets: for each secret option, the name of the workers' environment variable that holds it, in capitals.
        client: arguments of `ProfileClient` as plain data, e.g. `{"ttl": 300}`; `cache_policy` and `source_policy`, and
            in this `breaker` and `retry`, as dicts of their own arguments. `ttl` and `negative_ttl` default to an hour,
            so that a job looks up each key once.
        rate: the limit of calls per second of the whole job, divided between the workers. Default none.
        concurrency: the limit of concurrent calls of the whole job, divided between the workers. Default 64.
        workers: the number of processes that share these limits. Default 1.

    Raises:
        SecretByValue: a secret, or a value that looks like one, was passed.
        ConfigurationError: an argument is invalid; the message names it.
    """

    __slots__ = ("_hash", "_text", "concurrency", "rate", "source", "workers")

    source: str
    rate: float | None
    concurrency: int
    workers: int
    _text: str
    _hash: int

    def __init__(
        self,
        source: str,
        *,
        options: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        client: Mapping[str, Any] | None = None,
        rate: float | None = None,
        concurrency: int = 64,
        workers: int = 1,
    ) -> None:
        if not isinstance(source, str) or not (source in _SOURCES or _FACTORY.fullmatch(source)):
            known = ", ".join(map(repr, _SOURCES))
            raise ConfigurationError(f"source must be one of {known}, or a factory as 'package.module:function'")
        plain = {
            "options": _plain("options", options),
            "secrets": _secrets(secrets),
            "client": _client_arguments(_plain("client", client)),
        }
        _check_options(source, plain["options"], plain["secrets"])
        check_int("workers", workers)
        if check_int("concurrency", concurrency) < workers:
            raise ConfigurationError(f"concurrency ({concurrency}) must be at least one for each of {workers} workers")
        self._set("source", source)
        self._set("rate", None if rate is None else check_number("rate", rate, unit="calls a second", positive=True))
        self._set("concurrency", concurrency)
        self._set("workers", workers)
        self._set("_text", json.dumps(plain, sort_keys=True))
        self._set("_hash", hash(self._key()))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    # --- values -----------------------------------------------------------------------------------------------

    @property
    def options(self) -> dict[str, Any]:
        """A copy of the source's options."""
        return self._part("options")

    @property
    def secrets(self) -> dict[str, str]:
        """A copy of the names of the variables, by option."""
        return self._part("secrets")

    @property
    def client(self) -> dict[str, Any]:
        """A copy of the client's arguments."""
        return self._part("client")

    @property
    def worker_rate(self) -> float | None:
        """The calls per second of one worker; `None` without a limit."""
        return None if self.rate is None else self.rate / self.workers

    @property
    def worker_concurrency(self) -> int:
        """The concurrent calls of one worker."""
        return self.concurrency // self.workers

    def shared_by(self, workers: int) -> ClientConfig:
        """Return this configuration for another number of workers.

        Raises:
            ConfigurationError: the concurrency is less than the number of workers.
        """
        return _rebuilt(self.source, {**self._arguments(), "workers": workers})

    # --- equality and immutability
    # ----------------------------------------------------------------------------------------------

    def _part(self, name: str) -> dict[str, Any]:
        part: dict[str, Any] = json.loads(self._text)[name]
        return part

    def _arguments(self) -> dict[str, Any]:
        plan: dict[str, Any] = json.loads(self._text)
        return {**plan, "rate": self.rate, "concurrency": self.concurrency, "workers": self.workers}

    def _key(self) -> tuple[object, ...]:
        return (self.source, self._text, self.rate, self.concurrency, self.workers)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, ClientConfig) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"ClientConfig is immutable; cannot set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"ClientConfig is immutable; cannot delete {name}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuilt, (self.source, self._arguments()))

    def __repr__(self) -> str:
        facts = [repr(self.source)]
        facts += [f"{option}=${variable}" for option, variable in sorted(self.secrets.items())]
        if self.rate is not None:
            facts.append(f"rate={self.rate:g}")
        facts += [f"concurrency={self.concurrency}", f"workers={self.workers}"]
        return f"<ClientConfig {', '.join(facts)}>"


def _rebuilt(source: str, arguments: dict[str, Any]) -> ClientConfig:
    return ClientConfig(source, **arguments)


def _plain(name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a deep copy as plain JSON data."""
    copy: dict[str, Any] = {}
    for option, value in _named(name, given).items():
        try:
            copy[option] = json.loads(json.dumps(value, allow_nan=False))
            fits = _same_shape(copy[option], value)
        except (TypeError, ValueError, RecursionError):
            fits = False
        if not fits:
            raise ConfigurationError(
                f"{name}[{option!r}] must be plain data (text, numbers, lists, dicts with text as keys), because it "
                "travels to the workers; make what is not in a factory: source='package.module:function'"
            )
        if _USERINFO.search(json.dumps(value)):
            raise SecretByValue(
                f"{name}[{option!r}] holds a URL with credentials, which would travel with the job: hand them in as "
                "secrets, the names of environment variables of the workers"
            )
    return copy


def _same_shape(copy: Any, value: Any) -> bool:
    """Return whether JSON preserves a value; a non-string key would become a string."""
    if isinstance(copy, dict):
        kept = cast("dict[str, Any]", copy)
        return kept.keys() == value.keys() and all(_same_shape(kept[name], value[name]) for name in kept)
    if isinstance(copy, list):
        return all(_same_shape(copy[at], value[at]) for at in range(len(cast("Sized", copy))))
    return bool(copy == value)


def _named(name: str, given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(option, str) and option.isidentifier() for option in given):
        raise ConfigurationError(f"{name} must be a dict by argument name")
    return given


def _secrets(given: Mapping[str, str] | None) -> dict[str, str]:
    secrets = dict(_named("secrets", given))
    for option, variable in secrets.items():
        if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
            raise SecretByValue(
                f"secrets[{option!r}] must be the name of an environment variable of the workers, in capitals, e.g. "
                f"{option.upper()!r}; a secret itself would travel with the job"
            )
    return secrets


def _check_options(source: str, options: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
    for option in options:
        if _SECRET_NAME.search(option):
            raise SecretByValue(
                f"options[{option!r}] is a secret, which would travel with the job: say "
                f"secrets={{{option!r}: NAME}} with the name of an environment variable of the workers"
            )
        if option in secrets:
            raise ConfigurationError(f"{option!r} is in options and in secrets; leave one out")
    if source in _SOURCES:
        takes = {name for made in _SOURCES[source] for name in inspect.signature(made).parameters}
        for option in [*options, *secrets]:
            if option not in takes:
                raise ConfigurationError(
                    f"the source {source!r} takes no {option!r}; it takes {', '.join(sorted(takes))}"
                )


def _client_arguments(given: dict[str, Any]) -> dict[str, Any]:
    ProfileClient(MemorySource(), **client_arguments(given))  # so that an error is raised here, not on a worker
    return given


def client_arguments(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the client's arguments with their objects constructed.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """
    return _made(plain, ProfileClient, "client")


def _made(plain: Mapping[str, Any], maker: Callable[..., object], place: str) -> dict[str, Any]:
    """Return the arguments of `maker` with their objects constructed; `place` is their name in messages."""
    known = inspect.signature(maker).parameters
    made = dict(plain)
    for name, value in plain.items():
        argument = f"{place}[{name!r}]"
        if name in _OWN:
            raise ConfigurationError(f"{argument} is each worker's share of the job's rate and concurrency: give these")
        if name not in known or name in _CALLABLES:
            raise ConfigurationError(f"{argument} is not an argument of {maker.__name__} that can travel as plain data")
        if name in _OBJECTS and value is not None:
            if not isinstance(value, dict):
                raise ConfigurationError(f"{argument} must be a dict of the arguments of {_OBJECTS[name].__name__}")
            made[name] = _OBJECTS[name](**_made(cast("dict[str, Any]", value), _OBJECTS[name], argument))
    return made
