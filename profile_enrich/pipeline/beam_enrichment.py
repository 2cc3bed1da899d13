# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
# Rows have any type, and the engine's types are not available here.
"""Source handler for Beam's Enrichment transform.

Reference: `apache_beam.transforms.enrichment`, which imports `google.api_core` (extra `apache-beam[gcp]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._utils.freeze import thaw
from .._utils.optional_import import import_extra
from .._utils.validation import check_int, check_number
from ..errors import ConfigurationError
from ..profile import Profile, ProfileKey, Reason
from .keys import KeyOf, key_of, key_reader
from .workers.worker_clients import ClientConfig
from .workers.worker_lookup import WorkerLookup, config_of, fields_of

_beam = import_extra("apache_beam", "the handler for Beam's Enrichment", "beam")
_Handler: Any = import_extra(
    "apache_beam.transforms.enrichment", "the handler for Beam's Enrichment", "beam"
).EnrichmentSourceHandler

__all__ = ["ProfileHandler"]


class ProfileHandler(_Handler):  # type: ignore[misc]  # its types are not seen here
    """A source handler for Beam's `Enrichment` that looks up profiles.

    ```python
    rows | Enrichment(ProfileHandler(config, key="user_id", fields=["tier", "score"]))
    ```

    `Enrichment` adds the fields to each `beam.Row` as columns (`None` without a profile). A failed lookup raises, as
    `Enrichment` requires, and ends the job after its retries; use `EnrichProfiles` for an output of failed elements. A
    Redis cache is not needed, because each process has its own cache.

    Args:
        config: the client configuration of the workers.
        key: a field's name, or a function of the row.
        fields: the attributes to add; all rows must have the same columns.
        prefix: the prefix of the column names. Default `""`.
        batch: the largest number of rows to look up together. Default 1,000. Use 1 to disable Beam's batching, which
            loses the timestamps of rows in the global window.
        retry_timeout: how long to retry a failing source, in seconds. Default 20, since `Enrichment` times out after
            30.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        key: KeyOf,
        fields: list[str] | tuple[str, ...],
        prefix: str = "",
        batch: int = 1000,
        retry_timeout: float = 20.0,
    ) -> None:
        key_reader(key)
        if not isinstance(prefix, str):
            raise ConfigurationError("prefix must be text")
        names = fields_of(fields)
        if names is None:
            raise ConfigurationError("fields must name the attributes to take over")
        self._columns = {prefix + name: name for name in names}
        self._worker_lookup = WorkerLookup(config_of(config), names, check_number("retry_timeout", retry_timeout))
        self._key: Any = key
        self._batch = check_int("batch", batch)

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Called by Beam with one row, or with a list of them."""
        rows = request if isinstance(request, list) else [request]
        read = key_reader(self._key)
        keys = [key_of(read(row)) for row in rows]
        profiles = self._worker_lookup.profiles(keys)
        pairs = [(row, self._columns_of(profiles[key])) for row, key in zip(rows, keys, strict=True)]
        return pairs if isinstance(request, list) else pairs[0]

    def _columns_of(self, profile: Profile) -> Any:
        if profile.reason is Reason.UNAVAILABLE and profile.error is not None:
            raise profile.error
        return _beam.Row(**{column: thaw(profile.get(name)) for column, name in self._columns.items()})

    def get_cache_key(self, request: Any) -> Any:
        """Return the key for Beam's Redis cache: the type and the key, not the whole row."""
        rows = request if isinstance(request, list) else [request]
        read = key_reader(self._key)
        keys = [ProfileKey.of(key_of(read(row))) for row in rows]
        texts = [f"{key.type}:{key.value}" for key in keys]
        return texts if isinstance(request, list) else texts[0]

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Return the options of Beam's batching."""
        return {} if self._batch == 1 else {"min_batch_size": min(10, self._batch), "max_batch_size": self._batch}
