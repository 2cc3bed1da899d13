"""`profile-enrich serve`: the embedded Profile API over the user's own files."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..._utils.signals import ending_on_signals, run_in_thread
from ...errors import ConfigurationError
from ...server import ApiKey, AuditLog, KeyFile, ProfileAPI, Rate
from ...server.auth.key_file import keys_beside
from ...server.http.gzip import FROM_BYTES
from ...server.process.serve import serve_app
from ...server.process.sockets import bind, on_loopback
from ...server.process.supervisor import MAX_WORKERS
from ...server.process.worker import on_terminal, require_uvicorn
from ...server.scheduled_refresh import RefreshSchedule, seconds_of
from ...server.shared_state import SharedState
from ...store import Collection, LocalStore, ProfileStore
from ...store.inputs.source_config import write_recipe
from ...store.model import MAX_SHRINK
from ..build_progress import build, specifications
from ..collection_options import shrink_option, specs_from_file
from ..database_options import check_elsewhere, open_database, serving_options
from ..exit_codes import guarded
from ..output import note
from ..relay_options import Upstream, mirror_option, open_relay, record_age_option, upstream_options
from ..shipping_options import FIRST_GENERATION, following_options, open_follower
from ..temporary_store import temporary_store
from ..toml_config import Configured, config_option

if TYPE_CHECKING:  # obstore, only when it is needed
    from ...relay import Relay
    from ...store.shipping import GenerationFollower

__all__ = ["serve"]

BeforeRead = Callable[[Collection, Sequence[str]], Awaitable[None]]


@click.command(cls=Configured)
@config_option
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CSV, TSV, JSONL or Parquet; several: repeat --data, --entity and --id in the same order.",
)
@click.option(
    "--entity",
    "entities",
    multiple=True,
    metavar="NAME",
    help="What the records are, e.g. Users. Default: the file's name.",
)
@click.option("--id", "ids", multiple=True, metavar="COLUMN", help="The column that identifies a record. Default: id.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="COLUMN",
    help="Allow filtering by this column; with several --data: ENTITY:COLUMN.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    envvar="PROFILE_ENRICH_STORE",
    show_envvar=True,
    help="Build the store here, or serve the one that is here. Default: a temporary one, removed at the end.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="PROFILE_ENRICH_HOST",
    show_envvar=True,
    help="The address to listen on; 0.0.0.0 for all of this machine's.",
)
@click.option(
    "--port",
    default=8787,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar="PROFILE_ENRICH_PORT",
    show_envvar=True,
    help="0 takes any free one.",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="SECRET",
    envvar="PROFILE_ENRICH_KEYS",
    show_envvar=True,
    help="A key that may ask, at least 16 characters; several: repeat, or separate with spaces in the variable.",
)
@click.option("--generate-key", is_flag=True, help="Make a new key and show it, once.")
@click.option("--no-auth", is_flag=True, help="Answer everybody who can reach the port. Only for trying out.")
@click.option(
    "--workspace",
    default="default",
    show_default=True,
    metavar="NAME",
    envvar="PROFILE_ENRICH_WORKSPACE",
    show_envvar=True,
    help="The workspace (Amperity: tenant) that the keys belong to.",
)
@click.option("--access-log", is_flag=True, help="Log one line a request, without ids.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_WORKERS),
    envvar="PROFILE_ENRICH_WORKERS",
    show_envvar=True,
    help="Processes that share the port.",
)
@click.option(
    "--max-age",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="Clients may use an answer for so long without asking again. Default: they decide.",
)
@click.option(
    "--compress-from",
    default=FROM_BYTES,
    show_default=True,
    type=click.IntRange(0),
    metavar="BYTES",
    help="Send answers from this size on as gzip to clients that take it; 0 for none.",
)
@click.option(
    "--metrics",
    default="off",
    show_default=True,
    type=click.Choice(["off", "keys", "open"]),
    help="Prometheus metrics at /metrics: for nobody, for holders of a key, for everybody.",
)
@click.option(
    "--refresh-every",
    metavar="SPAN",
    envvar="PROFILE_ENRICH_REFRESH_EVERY",
    show_envvar=True,
    help="Refresh the store from its sources every 90s, 15m, 2h or 1d, give or take a tenth.",
)
@shrink_option
@click.option(
    "--keys-file",
    type=click.Path(path_type=Path),
    envvar="PROFILE_ENRICH_KEYS_FILE",
    show_envvar=True,
    help="Who may ask: the file that `profile-enrich keys` made. Default: STORE.keys.json, where it is there.",
)
@click.option(
    "--rate",
    metavar="RATE",
    envvar="PROFILE_ENRICH_RATE",
    show_envvar=True,
    help="How often each key may ask that has no rate of its own: 100/s, 700/m, or a vendor's: amperity.",
)
@click.option(
    "--audit-log",
    type=click.Path(path_type=Path),
    envvar="PROFILE_ENRICH_AUDIT_LOG",
    show_envvar=True,
    help="Note here who asked for whose profile, as JSON lines with hashed ids.",
)
@click.option(
    "--page/--no-page",
    default=None,
    envvar="PROFILE_ENRICH_PAGE",
    show_envvar=True,
    help="The page of entities at /, for a browser. Default: only where --host is the loopback address.",
)
@serving_options
@following_options
@mirror_option
@upstream_options
@record_age_option("1h")
@click.pass_context
@guarded
def serve(
    ctx: click.Context,
    config: Path | None,
    data: tuple[Path, ...],
    entities: tuple[str, ...],
    ids: tuple[str, ...],
    filters: tuple[str, ...],
    store: Path | None,
    host: str,
    port: int,
    keys: tuple[str, ...],
    generate_key: bool,
    no_auth: bool,
    workspace: str,
    access_log: bool,
    workers: int,
    max_age: int | None,
    compress_from: int,
    metrics: str,
    refresh_every: str | None,
    allow_shrink: bool,
    keys_file: Path | None,
    rate: str | None,
    audit_log: Path | None,
    page: bool | None,
    database: str | None,
    schema: str,
    tables: tuple[str, ...],
    replicas: tuple[str, ...],
    page_secret: str | None,
    from_url: str | None,
    poll: str,
    shipping_key: str | None,
    storage_option: tuple[str, ...],
    mirror: Path | None,
    upstream: str | None,
    upstream_key: str | None,
    upstream_url: str | None,
    upstream_tenant: str | None,
    record_age: str,
) -> None:
    """Serve a Profile API of your own: Census's and Amperity's URLs over your files, on this machine.

    \b
    profile-enrich serve --data users.csv --entity Users --id user_id --filter email --generate-key
    profile-enrich serve --data users.parquet --data accounts.csv --entity Users --entity Accounts --id id
    profile-enrich serve --store profiles.store          (built before; with the keys made by `profile-enrich keys`)

    profile-enrich serve --database postgresql://… --table Users=crm.users --id user_id
    profile-enrich serve --from s3://bucket/profiles --store copy.store

    profile-enrich serve --mirror users.mirror --upstream census --entity Users --id user_id

    profile-enrich serve --config server.toml

    By default it listens on this machine only and requires a key. With --config, SIGHUP reloads the file (all but data,
    store, host, port and workers), except in a terminal. SIGTERM, SIGINT and other SIGHUPs end it within two seconds,
    with the exit code 128 + the signal's number.
    """
    described = config is not None and bool(ctx.meta.get("collections"))
    if described and data:
        raise ConfigurationError("--data contradicts the [collections] of the configuration file; leave one out")
    elsewhere = check_elsewhere(
        database=database, from_url=from_url, mirror=mirror, local=bool(data or described or refresh_every), store=store
    )
    if not data and not described and store is None and not elsewhere:
        raise ConfigurationError(
            "give --data FILE (with --entity and --id), or --store PATH of a store built before, or --database URL, or"
            " --from URL, or --mirror FILE"
        )
    if not data and (entities or ids or filters) and not tables and upstream is None:
        raise ConfigurationError("--entity, --id and --filter describe --data, and there is none")
    if no_auth and (keys or generate_key):
        raise ConfigurationError("--no-auth contradicts --key, --generate-key and PROFILE_ENRICH_KEYS; leave one out")
    keys_file = _keys_file(keys_file, store, chosen=bool(no_auth or keys or generate_key))
    if not (no_auth or keys or generate_key or keys_file):
        keys = _key_of_clients()
    if not (no_auth or keys or generate_key or keys_file):
        raise ConfigurationError(
            "who may ask? Give a key in PROFILE_ENRICH_API_KEY, or several in PROFILE_ENRICH_KEYS, or --generate-key,"
            " or make one for a --store with `profile-enrich keys add`, or say --no-auth to answer everybody"
        )
    require_uvicorn()  # before the build, which may take long
    if described and config is not None:
        specs = specs_from_file(config)
    elif elsewhere:
        specs = []
    else:
        specs = specifications(data, entities, ids, filters)
    for wrong in keys:  # before the build, which may take long
        ApiKey.from_secret(wrong, workspace=workspace)
    if rate is not None:
        Rate.parse(rate)
    every = None if refresh_every is None else seconds_of(refresh_every)
    max_shrink = 1.0 if allow_shrink else MAX_SHRINK
    if every is not None and store is None and not specs:
        raise ConfigurationError("--refresh-every needs sources to refresh from")
    if upstream is not None and (mirror is None or workers != 1):
        raise ConfigurationError("--upstream needs --mirror FILE, and one worker: its limits are those of one process")
    vendor = None
    if upstream is not None:
        vendor = Upstream(upstream, upstream_key, upstream_url, upstream_tenant, entities, ids)
    secret: str | None = None
    generated: list[ApiKey] = []
    if generate_key:
        key, secret = ApiKey.generate(workspace=workspace)
        generated.append(key)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ending_on_signals())
        listener = stack.enter_context(contextlib.closing(bind(host, port)))  # before the build, which may take long
        path = store if store is not None else stack.enter_context(temporary_store())
        opened: ProfileStore | None = None
        follower: GenerationFollower | None = None
        if database is not None:
            opened = open_database(
                database,
                schema=schema,
                replicas=replicas,
                tables=tables,
                ids=ids,
                filters=filters,
                page_secret=page_secret,
            )
            stack.callback(opened.close)
        relay: Relay | None = None
        if mirror is not None:
            relay = open_relay(mirror, vendor, max_age=seconds_of(record_age))
            opened = relay.store
            stack.callback(opened.close)
        if from_url is not None:
            follower = open_follower(
                path, from_url, shipping_key=shipping_key, poll=seconds_of(poll), storage_option=storage_option
            )
            stack.callback(follower.close)
            run_in_thread(partial(follower.wait_until_ready, FIRST_GENERATION))
        if specs and not (described and (path / "CURRENT").exists()):
            run_in_thread(lambda: build(path, specs, max_shrink=max_shrink))
            if store is not None:  # so that `index refresh` knows the sources
                write_recipe(path, specs)
        schedule = None if every is None else RefreshSchedule(path, specs or None, every=every, max_shrink=max_shrink)
        reporting = schedule or follower
        status = None if reporting is None else reporting.status

        fill = None if relay is None else relay.fill

        def options() -> Mapping[str, Any]:
            return ctx.command.again(ctx) if isinstance(ctx.command, Configured) else ctx.params

        def make(shared: SharedState) -> ProfileAPI:
            return _api(opened or path, options(), generated, status, shared, fill)

        def reload() -> None:
            now = options()
            _api(opened or path, now, generated, status, SharedState()).close()
            text = now["refresh_every"]
            if (text is None) != (schedule is None):
                raise ConfigurationError("refresh_every can be changed while the server runs, not begun or ended")
            if schedule is not None:
                schedule.change(seconds_of(text))

        def ready(url: str) -> None:
            if schedule is not None:  # only now: the workers are there, and a thread does not outlive a fork
                schedule.start()
            if follower is not None:
                follower.start()
            with contextlib.nullcontext(opened) if opened is not None else LocalStore(path) as built:
                _announce(url, built, secret=secret, workspace=workspace, no_auth=no_auth)

        _log_to_stderr("profile_enrich.server", logging.INFO if access_log else logging.WARNING)
        try:
            number = serve_app(
                make,
                listener,
                workers=workers,
                on_ready=ready,
                on_reload=None if config is None or on_terminal() else reload,
            )
        finally:
            if schedule is not None:
                schedule.stop()
    note("Stopped.")
    if number is not None:
        raise click.exceptions.Exit(128 + number)


def _api(
    store: ProfileStore | Path,
    options: Mapping[str, Any],
    generated: list[ApiKey],
    status: Callable[[], Mapping[str, Any]] | None,
    shared: SharedState,
    fill: BeforeRead | None = None,
) -> ProfileAPI:
    """Make the application of these options."""
    keys, no_auth, workspace = options["keys"], options["no_auth"], options["workspace"]
    chosen = bool(no_auth or keys or generated)
    keys_file = _keys_file(options["keys_file"], options["store"], chosen=chosen)
    file = None if keys_file is None else KeyFile(keys_file)
    if not (chosen or keys_file):
        keys = _key_of_clients()
    allowed = [ApiKey.from_secret(secret, workspace=workspace) for secret in keys] + generated
    audit_log: Path | None = options["audit_log"]
    return ProfileAPI(
        store,
        keys=allowed or file,
        no_auth=no_auth,
        # The keys of a file say themselves which workspace is theirs, unless it was said here.
        workspace=None if file is not None and workspace not in file.workspaces else workspace,
        access_log=options["access_log"],
        rate=None if options["rate"] is None else Rate.parse(options["rate"]),
        audit=None if audit_log is None else AuditLog(audit_log),
        max_age=options["max_age"],
        compress_from=options["compress_from"] or None,
        metrics=options["metrics"],
        shared=shared,
        page=on_loopback(options["host"]) if options["page"] is None else options["page"],
        refreshing=status,
        before_read=fill,
    )


def _key_of_clients() -> tuple[str, ...]:
    """Return the key in the variable that the commands which query a server read, if it is set."""
    key = os.environ.get("PROFILE_ENRICH_API_KEY")
    return (key,) if key else ()


def _keys_file(named: Path | None, store: Path | None, *, chosen: bool) -> Path | None:
    """The file of keys to use: the one that was named, or the store's own unless another way was chosen.

    Raises:
        ConfigurationError: a file was named, and another way too; or it is not there.
    """
    if named is not None:
        if chosen:
            raise ConfigurationError("--keys-file contradicts --key, --generate-key and --no-auth; leave one out")
        if not named.exists():
            raise ConfigurationError(f"there is no key file {named}; `profile-enrich keys add` makes it")
        return named
    beside = None if store is None else keys_beside(store)
    return beside if beside is not None and not chosen and beside.exists() else None


def _log_to_stderr(name: str, level: int) -> None:
    logger = logging.getLogger(name)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(level)


def _announce(url: str, store: ProfileStore, *, secret: str | None, workspace: str, no_auth: bool) -> None:
    lines = [f"Profile API at {url}"]
    if secret is not None:
        lines += ["", "The new key; it is shown this once:", "", f"    export PROFILE_ENRICH_API_KEY={secret}"]
    collections = store.collections()
    lines += ["", "Collections:"]
    for each in collections:
        index = f"index {each.index_id}" if each.index_fields is not None else "no index: more than 30 columns"
        lines.append(f"    {each.name}: {each.rows:,} records by {each.key}; entity {each.id}, {index}")
    auth = "" if no_auth else ' -H "Authorization: Bearer $PROFILE_ENRICH_API_KEY"'
    lines += ["", "Try it:", "", f"    curl{auth} {url}/api/v1/entities"]
    if collections:
        first = collections[0]
        lines.append(f"    curl{auth} '{url}/api/v1/entities/{first.id}/record?record_id=…'")
        if first.index_fields is not None:
            tenant = f' -H "amperity-tenant: {workspace}" -H "api-version: 2025-07-31"'
            lines.append(f"    curl{auth}{tenant} '{url}/api/indexes/{first.index_id}/profiles?limit=5'")
    lines += ["", "Ctrl-C stops it."]
    click.echo("\n".join(lines))
