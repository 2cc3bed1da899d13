"""Options of `serve`, their validation, and the application that they describe."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from .._utils.output_paths import OutputKind, OutputPath, check_output_paths
from ..errors import ConfigurationError
from ..server import ApiKey, AuditLog, KeyFile, ProfileAPI, Rate
from ..server.auth.key_file import keys_beside
from ..server.cross_worker_state import SharedState
from ..server.http.gzip import FROM_BYTES
from ..server.process.sockets import on_loopback
from ..server.process.supervisor import MAX_WORKERS
from ..server.scheduled_refresh import seconds_of
from ..store import Collection, CollectionSpec, ProfileStore
from ..store.collection_specs import MAX_SHRINK
from .build_progress import specifications
from .collection_options import shrink_option, specs_from_file
from .database_options import check_elsewhere, serving_options
from .relay_options import Upstream, mirror_option, record_age_option, upstream_options
from .shipping_options import following_options

__all__ = ["ServeOptions", "serve_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--data",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="CSV, TSV, JSONL or Parquet; several: repeat --data, --entity and --id in the same order.",
    ),
    click.option(
        "--entity",
        "entities",
        multiple=True,
        metavar="NAME",
        help="The name of the collection, e.g. Users. Default: the file's name.",
    ),
    click.option(
        "--id", "ids", multiple=True, metavar="COLUMN", help="The column that identifies a record. Default: id."
    ),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="COLUMN",
        help="A column to filter by; with several --data: ENTITY:COLUMN.",
    ),
    click.option(
        "--store",
        type=click.Path(path_type=Path),
        envvar="PROFILE_ENRICH_STORE",
        show_envvar=True,
        help="The store to build or serve. Default: a temporary one, removed at the end.",
    ),
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        envvar="PROFILE_ENRICH_HOST",
        show_envvar=True,
        help="The address to listen on; 0.0.0.0 for all interfaces.",
    ),
    click.option(
        "--port",
        default=8787,
        show_default=True,
        type=click.IntRange(0, 65535),
        envvar="PROFILE_ENRICH_PORT",
        show_envvar=True,
        help="The port; 0 for any free one.",
    ),
    click.option(
        "--key",
        "keys",
        multiple=True,
        metavar="SECRET",
        help="An API key of at least 16 characters. Can be repeated. Default: those in PROFILE_ENRICH_API_KEY,"
        " separated by spaces, unless there is a key file.",
    ),
    click.option("--generate-key", is_flag=True, help="Generate a key and show it once."),
    click.option("--no-auth", is_flag=True, help="Serve without authentication. Only for trials."),
    click.option(
        "--workspace",
        default="default",
        show_default=True,
        metavar="NAME",
        envvar="PROFILE_ENRICH_WORKSPACE",
        show_envvar=True,
        help="The workspace (Amperity: tenant) that the keys belong to.",
    ),
    click.option("--access-log", is_flag=True, help="Log one line per request, without ids."),
    click.option(
        "--workers",
        default=1,
        show_default=True,
        type=click.IntRange(1, MAX_WORKERS),
        envvar="PROFILE_ENRICH_WORKERS",
        show_envvar=True,
        help="The number of processes that share the port.",
    ),
    click.option(
        "--max-age",
        type=click.IntRange(0),
        metavar="SECONDS",
        help="The max-age of responses, in seconds. Default: none.",
    ),
    click.option(
        "--compress-from",
        default=FROM_BYTES,
        show_default=True,
        type=click.IntRange(0),
        metavar="BYTES",
        help="The size in bytes from which responses are gzipped; 0 for never.",
    ),
    click.option(
        "--metrics",
        default="off",
        show_default=True,
        type=click.Choice(["off", "keys", "open"]),
        help="Prometheus metrics at /metrics: off, with a key, or without a key.",
    ),
    click.option(
        "--refresh-every",
        metavar="SPAN",
        envvar="PROFILE_ENRICH_REFRESH_EVERY",
        show_envvar=True,
        help="Refresh the store from its sources every 90s, 15m, 2h or 1d (varied by a tenth).",
    ),
    shrink_option,
    click.option(
        "--keys-file",
        type=click.Path(path_type=Path),
        envvar="PROFILE_ENRICH_KEYS_FILE",
        show_envvar=True,
        help="The key file written by `profile-enrich keys`. Default: STORE.keys.json, if it exists.",
    ),
    click.option(
        "--rate",
        metavar="RATE",
        envvar="PROFILE_ENRICH_RATE",
        show_envvar=True,
        help="The rate limit of keys without their own: 100/s, 700/m, or a vendor's: amperity.",
    ),
    click.option(
        "--audit-log",
        type=click.Path(path_type=Path),
        envvar="PROFILE_ENRICH_AUDIT_LOG",
        show_envvar=True,
        help="Write an audit log to this file: JSON lines with hashed ids.",
    ),
    click.option(
        "--page/--no-page",
        default=None,
        envvar="PROFILE_ENRICH_PAGE",
        show_envvar=True,
        help="Serve the entities page at /. Default: only if --host is the loopback address.",
    ),
)


def serve_options(command: F) -> F:
    """Add all options of `serve` except `--config`."""
    wrapped: Any = serving_options(following_options(mirror_option(upstream_options(record_age_option("1h")(command)))))
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return cast("F", wrapped)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The values of the options, by their names on the command line."""

    config: Path | None
    data: tuple[Path, ...]
    entities: tuple[str, ...]
    ids: tuple[str, ...]
    filters: tuple[str, ...]
    store: Path | None
    host: str
    port: int
    keys: tuple[str, ...] = field(repr=False)
    generate_key: bool
    no_auth: bool
    workspace: str
    access_log: bool
    workers: int
    max_age: int | None
    compress_from: int
    metrics: Any
    refresh_every: str | None
    allow_shrink: bool
    keys_file: Path | None
    rate: str | None
    audit_log: Path | None
    page: bool | None
    database: str | None = field(repr=False)
    schema: str
    tables: tuple[str, ...]
    replicas: tuple[str, ...] = field(repr=False)
    page_secret: str | None = field(repr=False)
    from_url: str | None
    poll: str
    shipping_key: str | None = field(repr=False)
    storage_option: tuple[str, ...] = field(repr=False)
    mirror: Path | None
    upstream: str | None
    upstream_key: str | None = field(repr=False)
    upstream_url: str | None
    upstream_tenant: str | None
    record_age: str

    @property
    def every(self) -> float | None:
        """Seconds between two refreshes; `None` for none.

        Raises:
            ConfigurationError: the value is not a duration.
        """
        return None if self.refresh_every is None else seconds_of(self.refresh_every)

    @property
    def max_shrink(self) -> float:
        """The share of records that a refresh may remove from a collection."""
        return 1.0 if self.allow_shrink else MAX_SHRINK

    @property
    def vendor(self) -> Upstream | None:
        """The vendor behind a relay.

        Raises:
            ConfigurationError: there is no mirror, or there are several workers.
        """
        if self.upstream is None:
            return None
        if self.mirror is None or self.workers != 1:
            raise ConfigurationError(
                "--upstream needs --mirror FILE, and one worker: its limits are those of one process"
            )
        return Upstream(
            self.upstream, self.upstream_key, self.upstream_url, self.upstream_tenant, self.entities, self.ids
        )

    def specs(self, *, described: bool) -> list[CollectionSpec]:
        """Return the sources of the store; empty for an existing store, or one that is not built here.

        Args:
            described: whether the configuration file has collections.

        Raises:
            ConfigurationError: there is nothing to serve, or options are inconsistent.
        """
        if described and self.data:
            raise ConfigurationError("--data contradicts the [collections] of the configuration file; leave one out")
        elsewhere = check_elsewhere(
            database=self.database,
            from_url=self.from_url,
            mirror=self.mirror,
            local=bool(self.data or described or self.refresh_every),
            store=self.store,
        )
        if not self.data and not described and self.store is None and not elsewhere:
            raise ConfigurationError(
                "pass --data FILE (with --entity and --id), or --store PATH of a store built before, or --database URL,"
                " or --from URL, or --mirror FILE"
            )
        if not self.data and (self.entities or self.ids or self.filters) and not self.tables and self.upstream is None:
            raise ConfigurationError("--entity, --id and --filter describe --data, and there is none")
        if described and self.config is not None:
            return specs_from_file(self.config)
        specs = [] if elsewhere else specifications(self.data, self.entities, self.ids, self.filters)
        if self.every is not None and self.store is None and not specs:
            raise ConfigurationError("--refresh-every needs sources to refresh from")
        return specs

    def access(self, generated: Sequence[ApiKey]) -> KeyFile | list[ApiKey]:
        """Return the keys that give access; an empty list with `--no-auth`.

        Args:
            generated: the key that `--generate-key` made.

        Raises:
            ConfigurationError: there is no key, options contradict each other, or a key cannot be used.
        """
        chosen = bool(self.no_auth or self.keys or self.generate_key)
        if self.no_auth and (self.keys or self.generate_key):
            raise ConfigurationError("--no-auth contradicts --key and --generate-key; leave one out")
        if self.keys_file is not None:
            if chosen:
                raise ConfigurationError("--keys-file contradicts --key, --generate-key and --no-auth; leave one out")
            if not self.keys_file.exists():
                raise ConfigurationError(f"there is no key file {self.keys_file}; `profile-enrich keys add` makes it")
            return KeyFile(self.keys_file)
        beside = None if self.store is None else keys_beside(self.store)
        if beside is not None and not chosen and beside.exists():
            return KeyFile(beside)
        # The commands that query a server read the same variable.
        keys = self.keys if chosen else tuple(os.environ.get("PROFILE_ENRICH_API_KEY", "").split())
        if not keys and not chosen:
            raise ConfigurationError(
                "who may ask? Give a key in PROFILE_ENRICH_API_KEY, or --key, or --generate-key, or make one for a"
                " --store with `profile-enrich keys add`, or pass --no-auth to serve everybody"
            )
        return [*(ApiKey.from_secret(secret, workspace=self.workspace) for secret in keys), *generated]

    @property
    def shows_page(self) -> bool:
        """Whether the page of entities is served."""
        return on_loopback(self.host) if self.page is None else self.page

    def make_api(
        self,
        store: ProfileStore | Path,
        generated: Sequence[ApiKey],
        shared: SharedState,
        refreshing: Callable[[], Mapping[str, Any]] | None = None,
        before_read: Callable[[Collection, Sequence[str]], Awaitable[None]] | None = None,
    ) -> ProfileAPI:
        """Make the application.

        Raises:
            ConfigurationError: see `access`; or another option makes no sense.
            OSError: the audit log cannot be opened.
            StoreError: the store cannot be opened.
        """
        keys = self.access(generated)
        # The keys of a file have their workspace, unless an option names it.
        own = isinstance(keys, KeyFile) and self.workspace not in keys.workspaces
        return ProfileAPI(
            store,
            keys=keys or None if isinstance(keys, list) else keys,
            no_auth=self.no_auth,
            workspace=None if own else self.workspace,
            access_log=self.access_log,
            rate=self.rate,
            audit=None if self.audit_log is None else AuditLog(self.audit_log),
            max_age=self.max_age,
            compress_from=self.compress_from or None,
            metrics=self.metrics,
            shared=shared,
            page=self.shows_page,
            refreshing=refreshing,
            before_read=before_read,
        )

    def check(self, *, builds: bool) -> None:
        """Check before a build, which may take long, what is used after it, and every path that is written.

        Args:
            builds: whether the store is built.

        Raises:
            ConfigurationError: an option makes no sense, or a path cannot be written.
        """
        keys = self.access(())
        if self.rate is not None:
            Rate.parse(self.rate)
        inputs = {f"--data {path}": path for path in self.data}
        inputs |= {"--config": self.config} if self.config is not None else {}
        inputs |= {"the key file": keys.path} if isinstance(keys, KeyFile) else {}
        written: list[tuple[str, Path | None, OutputKind]] = [
            ("--store", self.store if builds or self.from_url is not None else None, "directory"),
            ("--mirror", self.mirror, "database"),
            ("--audit-log", self.audit_log, "log"),
        ]
        outputs = [OutputPath(path, role, kind=kind) for role, path, kind in written if path is not None]
        check_output_paths(outputs, inputs)
