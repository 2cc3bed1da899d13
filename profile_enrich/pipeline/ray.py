"""Ray adapter: enrich a Dataset in a pool of asynchronous actors, each with one client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._utils.optional_import import import_extra
from .._utils.validation import check_int
from ..errors import ConfigurationError
from .frames import enrich_with_async
from .options import EnrichOptions
from .tables.table_plan import TablePlan
from .workers.client_config import ClientConfig
from .workers.worker_clients import worker_async_client

__all__ = ["ProfileActor", "enrich_dataset"]


def enrich_dataset(
    dataset: Any,
    *,
    config: ClientConfig,
    key: str,
    fields: Mapping[str, Any],
    key_type: str = "id",
    prefix: str = "profile_",
    reason: str | None = "profile_reason",
    keyed: bool = True,
    workers: int | None = None,
    partitions: int | None = None,
    batch_size: int | None = 4096,
    options: EnrichOptions | None = None,
    ray_remote_args: Mapping[str, Any] | None = None,
) -> Any:
    """Return the dataset with the profiles of its keys as columns. It is evaluated lazily.

    Args:
        dataset: a `ray.data.Dataset`.
        config: the client configuration of the actors. Its rate and concurrency apply to the whole job, and are divided
            by `workers`.
        key: the column of the keys: text or integers.
        fields: attributes and their Arrow types, e.g. `{"tier": "string", "ltv": "double"}`: all blocks must have the
            same types.
        key_type, prefix, reason: as for `enrich_table`.
        keyed: shuffle all rows of a key into one block, so that the job looks up each key once. False avoids the
            shuffle, but each actor may look up each key.
        workers: the number of actors, each a process. Default: the `workers` of `config` if above 1, else 2.
        partitions: the number of blocks of the keyed dataset. Default: two per actor.
        batch_size: the number of rows per batch; `None` for whole blocks. Default 4,096.
        options: as for `enrich_table`; `concurrency` is the worker's share of `config`.
        ray_remote_args: options of the actors, such as `{"num_cpus": 0.5, "runtime_env": {"env_vars": …}}`. Default
            `{"num_cpus": 0.5}`, because they mostly wait.

    Returns:
        A dataset with its columns, one for each attribute, and the reason. The order of rows is undefined.

    Raises:
        ConfigurationError: an argument is invalid, or a type is not declared.
        MissingExtraError: the extra `ray` is not installed.
    """
    if not isinstance(config, ClientConfig):
        raise ConfigurationError(f"config must be a ClientConfig, not {type(config).__name__}")
    data = import_extra("ray.data", "enriching Ray Datasets", "ray")
    plan = TablePlan(
        key,
        key_type=key_type,
        fields=fields,
        prefix=prefix,
        options=options,
        reason=reason,
    )
    plan.columns.require_declared("Ray Data")
    processes = check_int("workers", (config.workers if config.workers > 1 else 2) if workers is None else workers)
    if keyed:
        count = 2 * processes if partitions is None else check_int("partitions", partitions)
        # Sorting makes the rows of a key adjacent, so it is looked up once even if the cache is too small for all keys.
        dataset = dataset.repartition(count, keys=[key], sort=True)
    return dataset.map_batches(
        ProfileActor,
        fn_constructor_args=(plan, config.shared_by(processes)),
        batch_format="pyarrow",
        batch_size=batch_size if batch_size is None else check_int("batch_size", batch_size),
        zero_copy_batch=True,
        compute=data.ActorPoolStrategy(size=processes),
        **{"num_cpus": 0.5, **(ray_remote_args or {})},
    )


class ProfileActor:
    """An actor that enriches batches.

    Args:
        plan: the plan of the enrichment.
        config: the client configuration, with one worker's share.
    """

    def __init__(self, plan: TablePlan, config: ClientConfig) -> None:
        self._plan = plan
        self._concurrency = config.worker_concurrency
        self._client = worker_async_client(config)

    async def __call__(self, batch: Any) -> Any:
        """Return the enriched batch. An actor enriches several batches concurrently through one client."""
        return await enrich_with_async(batch, self._plan, self._client, concurrency=self._concurrency)
