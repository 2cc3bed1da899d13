"""Lookups on an engine's workers: the arguments sent to them, and the attributes taken from the results."""

from __future__ import annotations

from typing import Any, cast

from ..._utils.freeze import thaw
from ...errors import ConfigurationError
from ...profile import Profile, ProfileKey
from .worker_clients import ClientConfig, worker_client

__all__ = ["WorkerLookup", "config_of", "fields_of"]


class WorkerLookup:
    """A lookup on a worker. It can be pickled, because the client is made on the worker."""

    def __init__(self, config: ClientConfig, fields: tuple[str, ...] | None, retry_timeout: float) -> None:
        self._config = config
        self._fields = fields
        self._retry_timeout = retry_timeout

    def open(self) -> None:
        """Make this process's client, so that a mistake shows before the first element."""
        worker_client(self._config)

    def profiles(self, keys: list[str | ProfileKey]) -> dict[str | ProfileKey, Profile]:
        """A profile for each key, within this worker's share of the job's budget."""
        client = worker_client(self._config)
        return client.lookup_many(keys, concurrency=self._config.worker_concurrency, retry_timeout=self._retry_timeout)

    def attributes(self, profile: Profile) -> dict[str, Any]:
        """What is taken over of a profile, as plain data."""
        if self._fields is None:
            return profile.as_dict()
        return {name: thaw(profile.get(name)) for name in self._fields}


def config_of(config: object) -> ClientConfig:
    """The configuration itself.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(config, ClientConfig):
        raise ConfigurationError(f"config must be a ClientConfig, not {type(config).__name__}: clients do not travel")
    return config


def fields_of(fields: Any) -> tuple[str, ...] | None:
    """The names of attributes as a tuple; `None` for all.

    Raises:
        ConfigurationError: they are none.
    """
    if fields is None:
        return None
    if not isinstance(fields, list | tuple) or not fields:
        raise ConfigurationError("fields must be a list of attribute names")
    names: list[object] = [*fields]
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError("fields must be a list of attribute names, each a text that is not empty")
    return cast("tuple[str, ...]", tuple(names))
