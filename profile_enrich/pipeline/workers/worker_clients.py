"""Clients on the workers of Spark, Ray, Dask or Beam: one per process, kept between tasks."""

from __future__ import annotations

import atexit
import importlib
import os
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.datastructures import Secret

from ..._utils.fork import reset_after_fork
from ...client.blocking import BlockingProfileClient
from ...client.client import ProfileClient
from ...client.rate_limit import RateLimit
from ...client.source_policy import SourcePolicy
from ...errors import ConfigurationError, MissingVariable, ProfileEnrichError
from ...sources.amperity import AmperitySource
from ...sources.base import ProfileSource
from ...sources.bearer_tokens import ClientCredentials
from ...sources.census import CensusSource
from ...sources.store import StoreSource
from .client_config import ClientConfig, client_arguments

__all__ = ["ClientConfig", "close_worker_clients", "worker_async_client", "worker_client"]

_FOR_A_JOB = {"ttl": 3600.0, "negative_ttl": 3600.0}
"""The default `ttl` on workers, in seconds: a job looks up each key once, while pages need recent data."""

_BURST_SECONDS = 0.05
"""The burst of a worker's rate limit, in seconds, so that workers that start together do not exceed the rate."""


def worker_client(config: ClientConfig) -> BlockingProfileClient:
    """Return this process's client for synchronous code. The first call makes it; it is closed at the end of the
    process.

    Args:
        config: the client configuration; equal ones share a client in all tasks and threads.

    Returns:
        The client. Do not close it, because other tasks use it, too.

    Raises:
        MissingVariable: an environment variable named in `config.secrets` is not set.
        ConfigurationError: the source cannot be made.
    """
    return _clients.of(config)[1]


def worker_async_client(config: ClientConfig) -> ProfileClient:
    """Return the same client for asynchronous code, on any loop. It shares cache and rate with `worker_client`'s.

    Raises:
        MissingVariable, ConfigurationError: as `worker_client` does.
    """
    return _clients.of(config)[0]


def close_worker_clients() -> None:
    """Close and forget this process's clients; the next `worker_client` makes a new one. Not on a loop."""
    _clients.close()


class _Clients:
    """The clients of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[ClientConfig, tuple[ProfileClient, BlockingProfileClient]] = {}
        self._inherited: list[object] = []
        reset_after_fork(self)

    def of(self, config: ClientConfig) -> tuple[ProfileClient, BlockingProfileClient]:
        with self._lock:
            pair = self._made.get(config)
            if pair is None:
                client = _make(config)
                pair = self._made[config] = (client, client.blocking())
            return pair

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, {}
        for _, blocking in made.values():
            blocking.close()

    def after_fork(self) -> None:
        # The parent's clients are not closed or freed, because their sockets and loops belong to the parent.
        self._lock = threading.Lock()
        self._inherited.append(self._made)
        self._made = {}


_clients = _Clients()
atexit.register(close_worker_clients)


def _make(config: ClientConfig) -> ProfileClient:
    arguments: dict[str, Any] = {**_FOR_A_JOB, **client_arguments(config.client)}
    limit = None
    if config.worker_rate is not None:
        limit = RateLimit(config.worker_rate, burst=max(1.0, config.worker_rate * _BURST_SECONDS))
    arguments["source_policy"] = replace(
        arguments.get("source_policy") or SourcePolicy(), max_in_flight=config.worker_concurrency, rate_limit=limit
    )
    return ProfileClient(_source(config), **arguments)


def _source(config: ClientConfig) -> ProfileSource:
    options = config.options
    secrets = {option: _secret(option, variable) for option, variable in config.secrets.items()}
    if ":" in config.source:
        return _from_factory(config.source, {**options, **{option: str(secret) for option, secret in secrets.items()}})
    if config.source == "amperity" and "client_secret" in secrets:
        options["token"] = _credentials(options, secrets.pop("client_secret"))
    maker: Any = {"census": CensusSource, "amperity": AmperitySource, "store": StoreSource}[config.source]
    missing = ""
    try:
        made: ProfileSource = maker(**options, **secrets)
    except TypeError as error:
        missing = str(error).partition("()")[2] or "the arguments do not fit"
    else:
        return made
    raise ConfigurationError(f"the source {config.source!r} cannot be made: {missing.strip()}; see options and secrets")


def _secret(option: str, variable: str) -> Secret:
    value = os.environ.get(variable, "")
    if not value:
        raise MissingVariable(
            f"the environment of this worker has no {variable}, which holds the source's {option}: set it where the "
            "workers run, not only where the job is submitted"
        )
    return Secret(value)


def _credentials(options: dict[str, Any], secret: Secret) -> ClientCredentials:
    needed: dict[str, Any] = {}
    for name in ("token_url", "client_id"):
        if name not in options:
            raise ConfigurationError(f"options[{name!r}] is needed beside the secret 'client_secret'")
        needed[name] = options.pop(name)
    return ClientCredentials(
        **needed,
        client_secret=secret,
        tenant=options.get("tenant", ""),
        allow_insecure_http=bool(options.get("allow_insecure_http", False)),
    )


def _from_factory(path: str, arguments: dict[str, Any]) -> ProfileSource:
    module, _, name = path.partition(":")
    made: Any = None
    fault = ""
    try:
        made = importlib.import_module(module)
        for part in name.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError) as error:
        fault = f"cannot be imported on this worker ({type(error).__name__})"
    else:
        try:
            made = made(**arguments)
        except ProfileEnrichError:
            raise
        except Exception as error:  # noqa: BLE001  # the text of a user's error may quote a secret: it is not passed on
            last = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"raised {type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    if not fault:
        if isinstance(made, ProfileSource):
            return made
        fault = f"returned {type(made).__name__}, not a ProfileSource"
    raise ConfigurationError(f"the source's factory {path} {fault}")
