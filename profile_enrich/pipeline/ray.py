"""Enriches a Ray Dataset: a pool of asynchronous actors, each with one client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._utils.optional_import import engine
from .._utils.validation import check_int
from ..errors import ConfigurationError
from .frames import enrich_with_async
from .options import EnrichOptions
from .tables.plan import TablePlan
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
    """Return the dataset with the profiles of its keys as columns. Lazy, as all of Ray Data.

    Args:
        dataset: a `ray.data.Dataset`.
        config: how each actor makes its client. Its rate and concurrency are those of the whole job, and are split
            between `workers`.
        key: the column that holds the keys: text or whole numbers.
        fields: attributes and their Arrow types, e.g. `{"tier": "string", "ltv": "double"}`: blocks must not differ
            in their types.
        key_type, prefix, reason: as for `enrich_table`.
        keyed: brings all rows of a key into one block (a shuffle by the key), so that each key is looked up once in
            the job. With false rows stay where they are, and each actor asks for the keys that it meets.
        workers: actors, a process each. Default: the `workers` of `config` if above 1, else 2.
        partitions: blocks of the keyed dataset. Default: two for each actor.
        batch_size: rows that are enriched at a time; `None` for whole blocks. Default 4,096.
        options: as for `enrich_table`; `concurrency` is the worker's share of `config`.
        ray_remote_args: of the actors, such as `{"num_cpus": 0.5, "runtime_env": {"env_vars": …}}`. Default
            `{"num_cpus": 0.5}`, as they mostly wait.

    Returns:
        A dataset: its own columns, one for each attribute, and the reason. Rows are in no particular order.

    Raises:
        ConfigurationError: an argument is not usable, or a type is not declared.
        MissingExtraError: the extra `ray` is not installed.
    """
    if not isinstance(config, ClientConfig):
        raise ConfigurationError(f"config must be a ClientConfig, not {type(config).__name__}")
    data = engine("ray.data", "enriching Ray Datasets", "ray")
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
        # Sorted, a key's rows are neighbours: one lookup stays one, also where the cache is too small for all keys.
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
    """What each actor of the pool does with its batches.

    Args:
        plan: what is looked up and where it goes.
        config: how the client is made; of one worker's share.
    """

    def __init__(self, plan: TablePlan, config: ClientConfig) -> None:
        self._plan = plan
        self._concurrency = config.worker_concurrency
        self._client = worker_async_client(config)

    async def __call__(self, batch: Any) -> Any:
        """The batch, enriched. Batches of one actor are enriched at the same time, through the same client."""
        return await enrich_with_async(batch, self._plan, self._client, concurrency=self._concurrency)
