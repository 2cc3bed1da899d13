"""`profile-enrich serve`: the embedded Profile API over the user's data."""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..._utils.signals import run_in_thread
from ..._utils.temporary_directory import temporary_directory
from ...errors import ConfigurationError
from ...server import ApiKey, ProfileAPI
from ...server.cross_worker_state import SharedState
from ...server.process.serve import serve_app
from ...server.process.sockets import bind
from ...server.process.worker import on_terminal, require_uvicorn
from ...server.scheduled_refresh import RefreshSchedule, seconds_of
from ...store import LocalStore, ProfileStore
from ...store.inputs.source_config import write_recipe
from ..build_progress import build
from ..database_options import open_database
from ..exit_codes import guarded
from ..output import note
from ..relay_options import open_relay
from ..serve_options import ServeOptions, serve_options
from ..shipping_options import FIRST_GENERATION, open_follower
from ..toml_config import Configured, config_option

if TYPE_CHECKING:  # imports obstore
    from ...relay import Relay
    from ...store.shipping import GenerationFollower

__all__ = ["serve"]


@click.command(cls=Configured)
@config_option
@serve_options
@click.pass_context
@guarded
def serve(ctx: click.Context, /, **given: Any) -> None:
    """Serve your own Profile API: Census's and Amperity's URLs over your data.

    \b
    profile-enrich serve --data users.csv --entity Users --id user_id \\
        --filter email --generate-key
    profile-enrich serve --data users.parquet --data accounts.csv --entity Users \\
        --entity Accounts --id id
    # built before; with the keys made by `profile-enrich keys`
    profile-enrich serve --store profiles.store
    profile-enrich serve --database postgresql://… --table Users=crm.users \\
        --id user_id
    profile-enrich serve --from s3://bucket/profiles --store copy.store
    profile-enrich serve --mirror users.mirror --upstream census --entity Users \\
        --id user_id
    profile-enrich serve --config server.toml

    By default, it listens only on this machine and requires a key. With --config, SIGHUP reloads the file (all but
    data, store, host, port and workers), except in a terminal. SIGTERM, SIGINT and other SIGHUPs end it within two
    seconds, with the exit code 128 + the signal's number.
    """
    options = ServeOptions(**given)
    described = options.config is not None and bool(ctx.meta.get("collections"))
    specs = options.specs(described=described)
    options.check(builds=bool(specs))
    require_uvicorn()
    vendor, every = options.vendor, options.every
    secret: str | None = None
    generated: list[ApiKey] = []
    if options.generate_key:
        key, secret = ApiKey.generate(workspace=options.workspace)
        generated.append(key)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(bind(options.host, options.port)))  # before the build
        path = options.store or stack.enter_context(temporary_directory()) / "profiles.store"
        opened: ProfileStore | None = None
        follower: GenerationFollower | None = None
        relay: Relay | None = None
        if options.database is not None:
            opened = open_database(
                options.database,
                schema=options.schema,
                replicas=options.replicas,
                tables=options.tables,
                ids=options.ids,
                filters=options.filters,
                page_secret=options.page_secret,
            )
        elif options.mirror is not None:
            relay = open_relay(options.mirror, vendor, max_age=seconds_of(options.record_age))
            opened = relay.store
        elif options.from_url is not None:
            follower = open_follower(
                path,
                options.from_url,
                shipping_key=options.shipping_key,
                poll=seconds_of(options.poll),
                storage_option=options.storage_option,
            )
            stack.callback(follower.close)
            run_in_thread(partial(follower.wait_until_ready, FIRST_GENERATION))
        elif specs and not (described and (path / "CURRENT").exists()):
            run_in_thread(lambda: build(path, specs, max_shrink=options.max_shrink))
            if options.store is not None:  # for `index refresh`
                write_recipe(path, specs)
        if opened is not None:
            stack.callback(opened.close)
        schedule = (
            None if every is None else RefreshSchedule(path, specs or None, every=every, max_shrink=options.max_shrink)
        )
        reporting = schedule or follower
        status = None if reporting is None else reporting.status
        fill = None if relay is None else relay.fill

        def now() -> ServeOptions:
            assert isinstance(ctx.command, Configured)  # noqa: S101  # by its decorator
            return ServeOptions(**ctx.command.again(ctx))

        def make(shared: SharedState) -> ProfileAPI:
            return now().make_api(opened or path, generated, shared, status, fill)

        def reload() -> None:
            make(SharedState()).close()
            changed = now().every
            if (changed is None) != (schedule is None):
                raise ConfigurationError("refresh_every can be changed while the server runs, not begun or ended")
            if schedule is not None and changed is not None:
                schedule.change(changed)

        def ready(url: str) -> None:
            if schedule is not None:  # only now: the workers are there, and a thread does not outlive a fork
                schedule.start()
            if follower is not None:
                follower.start()
            with contextlib.nullcontext(opened) if opened is not None else LocalStore(path) as built:
                _announce(url, built, options, secret=secret)

        _log_to_stderr("profile_enrich.server", logging.INFO if options.access_log else logging.WARNING)
        try:
            number = serve_app(
                make,
                listener,
                workers=options.workers,
                on_ready=ready,
                on_reload=None if options.config is None or on_terminal() else reload,
            )
        finally:
            if schedule is not None:
                schedule.stop()
    note("Stopped.")
    if number is not None:
        raise click.exceptions.Exit(128 + number)


def _log_to_stderr(name: str, level: int) -> None:
    logger = logging.getLogger(name)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(level)


def _announce(url: str, store: ProfileStore, options: ServeOptions, *, secret: str | None) -> None:
    lines = [f"Profile API at {url}"]
    if options.shows_page:
        lines.append("The same address in a browser: a page of its entities, to look records up.")
    if secret is not None:
        lines += ["", "The new key; it is shown this once:", "", f"    export PROFILE_ENRICH_API_KEY={secret}"]
    collections = store.collections()
    lines += ["", "Collections:"]
    for each in collections:
        index = f"index {each.index_id}" if each.index_fields is not None else "no index: more than 30 columns"
        lines.append(f"    {each.name}: {each.rows:,} records by {each.key}; entity {each.id}, {index}")
    auth = [] if options.no_auth else ['-H "Authorization: Bearer $PROFILE_ENRICH_API_KEY"']
    lines += ["", "Try it:", "", _curl(*auth, f"{url}/api/v1/entities")]
    if collections:
        first = collections[0]
        if first.index_fields is not None:
            tenant = f'-H "amperity-tenant: {options.workspace}" -H "api-version: 2025-07-31"'
            lines += ["", _curl(*auth, tenant, "-G -d limit=5", f"{url}/api/indexes/{first.index_id}/profiles")]
        lines += ["", "One record, by its id:", "", f"    {url}/api/v1/entities/{first.id}/record?record_id=ID"]
    lines += ["", "Ctrl-C stops it."]
    click.echo("\n".join(lines))


def _curl(*arguments: str) -> str:
    """Return a command that can be pasted, in lines of less than 80 columns."""
    return "    curl " + " \\\n        ".join(arguments)
