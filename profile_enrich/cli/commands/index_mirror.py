"""`profile-enrich index mirror`: fill a mirror from the vendor, or compare both."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from ..._utils.units import parse_rate
from ...errors import ConfigurationError
from ...relay import Comparison, MirrorReport, compare, compare_index, mirror_ids, mirror_index, read_ids
from ...server.scheduled_refresh import seconds_of
from ...sources.amperity import AmperitySource
from ...store import ProfileStore, SqlQuery
from ...store.build_reports import BuildProgress
from ...store.inputs.source_config import SQL_URL
from ...store.mirror_store import MirrorStore
from ..build_progress import showing_progress
from ..database_options import open_place, place_options
from ..exit_codes import UNAVAILABLE, guarded, run
from ..output import note, print_json, print_mapping, shows_table
from ..relay_options import (
    Upstream,
    ensure_collection,
    mirror_option,
    record_age_option,
    upstream_options,
    vendor_source,
)

__all__ = ["mirror_command"]


@dataclass(frozen=True)
class _Order:
    """The settings of a run."""

    upstream: Upstream
    entity: str
    ids: Iterable[str] | None = field(repr=False)
    age: float
    rate: float | None
    concurrency: int
    timeout: float


@click.command("mirror")
@mirror_option
@place_options
@upstream_options
@click.option("--entity", required=True, metavar="NAME", help="The vendor's entity (Amperity: index).")
@click.option(
    "--id", "key", default="id", show_default=True, metavar="COLUMN", help="The column that identifies a record."
)
@click.option(
    "--ids",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Ids to fetch: CSV, JSONL or Parquet with a column --id; any other file, and - (standard input), has one id"
    " per line. Required for Census, which cannot list records; an Amperity index is paged through.",
)
@click.option("--sql", metavar="QUERY", help="A query for the ids, instead of --ids; needs --url.")
@click.option("--url", metavar="URL", envvar=SQL_URL, show_envvar=True, help="The database URL, in SQLAlchemy's form.")
@record_age_option("1d")
@click.option("--rate", metavar="N/s", help="Calls per second at most: 50/s, 3000/m. Default: no limit.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=8, show_default=True, help="Concurrent calls.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=10.0, metavar="SECONDS", help="Of a call.")
@click.option(
    "--compare",
    "compares",
    is_flag=True,
    help="Write nothing: count by attribute where the vendor differs from the --mirror, --store or --database.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
@guarded
def mirror_command(
    mirror: Path | None,
    store: Path | None,
    database: str | None,
    schema: str,
    upstream: str | None,
    upstream_key: str | None,
    upstream_url: str | None,
    upstream_tenant: str | None,
    entity: str,
    key: str,
    ids: Path | None,
    sql: str | None,
    url: str | None,
    record_age: str,
    rate: str | None,
    concurrency: int,
    timeout: float,
    compares: bool,
    as_json: bool,
) -> None:
    """Fetch a vendor's records in advance, and keep them in a mirror for `serve --mirror`.

    \b
    profile-enrich index mirror --mirror users.mirror --upstream census \\
        --entity Users --id user_id --ids ids.csv
    profile-enrich index mirror --mirror users.mirror --upstream amperity \\
        --upstream-tenant acme --entity Customers
    profile-enrich index mirror --compare --mirror users.mirror \\
        --upstream census --entity Users --ids ids.csv
    profile-enrich index mirror --compare --store profiles.store \\
        --upstream census --entity Users --ids ids.csv

    The vendor's key is read from PROFILE_ENRICH_UPSTREAM_KEY. Records not older than --record-age are skipped, so an
    interrupted run can be repeated. With --compare, differences are counted by attribute, without ids and values.

    Exit codes: 0 all is mirrored, or nothing differs; 1 something differs; 2 the command or the key is wrong; 3 some
    calls to the vendor failed: run it again.
    """
    if upstream is None:
        raise ConfigurationError("name the vendor: --upstream census or --upstream amperity")
    if ids is not None and sql is not None:
        raise ConfigurationError("--ids and --sql contradict each other; leave one out")
    if sql is not None and url is None:
        raise ConfigurationError(f"--sql needs the database's URL: put it into {SQL_URL} (or --url)")
    chosen: Iterable[str] | None = None
    if sql is not None:
        chosen = read_ids(SqlQuery(url or "", sql), key)
    elif ids is not None:
        chosen = read_ids(Path("/dev/stdin") if str(ids) == "-" else ids, key)
    if chosen is None and upstream == "census":
        raise ConfigurationError("Census lists no records: give their ids with --ids FILE or --sql QUERY")
    order = _Order(
        Upstream(upstream, upstream_key, upstream_url, upstream_tenant),
        entity,
        chosen,
        seconds_of(record_age),
        None if rate is None else parse_rate(rate),
        concurrency,
        timeout,
    )
    places = [name for name, value in (("--mirror", mirror), ("--store", store), ("--database", database)) if value]
    if mirror is not None and (compares or len(places) == 1):
        with MirrorStore(_there(mirror) if compares else mirror) as opened:
            report = run(_compare(order, opened) if compares else _mirror(order, opened, key))
    elif not compares:
        raise ConfigurationError("name the mirror: --mirror FILE. --store and --database are for --compare")
    elif len(places) != 1:
        raise ConfigurationError("name what to compare: --mirror FILE, --store DIRECTORY or --database URL")
    else:
        with open_place(store, database, schema) as opened_store:
            report = run(_compare(order, opened_store))
    if shows_table(as_json):
        print_mapping({name: value if isinstance(value, int) else dict(value) for name, value in report.items()})
    else:
        print_json(report)
    if report["failed"]:
        note("Some calls to the vendor failed; run it again.")
        raise click.exceptions.Exit(UNAVAILABLE)
    if compares and any(report[name] for name in ("different", "only_vendor", "only_store")):
        raise click.exceptions.Exit(1)


def _facts(report: Comparison | MirrorReport) -> dict[str, Any]:
    return {each.name: getattr(report, each.name) for each in fields(report)}  # asdict() spoils a Counter


def _there(mirror: Path) -> Path:
    if not mirror.is_file():
        raise ConfigurationError(f"there is no mirror {mirror} to compare with")
    return mirror


async def _mirror(order: _Order, store: MirrorStore, key: str) -> dict[str, Any]:
    source = vendor_source(order.upstream, order.entity)
    try:
        await ensure_collection(store, source, order.entity, key)
        if order.ids is None and isinstance(source, AmperitySource):
            return _facts(await mirror_index(source, store, order.entity, timeout=order.timeout))
        with _counted("Mirroring", order) as ids:
            report = await mirror_ids(
                source,
                store,
                order.entity,
                ids,
                max_age=order.age,
                concurrency=order.concurrency,
                rate=order.rate,
                timeout=order.timeout,
            )
        return _facts(report)
    finally:
        await source.aclose()


async def _compare(order: _Order, store: ProfileStore) -> dict[str, Any]:
    source = vendor_source(order.upstream, order.entity)
    try:
        if order.ids is None and isinstance(source, AmperitySource):
            return _facts(await compare_index(source, store, order.entity, timeout=order.timeout))
        with _counted("Comparing", order) as ids:
            found = await compare(
                source, store, order.entity, ids, concurrency=order.concurrency, rate=order.rate, timeout=order.timeout
            )
        return _facts(found)
    finally:
        await source.aclose()


@contextlib.contextmanager
def _counted(verb: str, order: _Order) -> Generator[Iterator[str]]:
    """The ids, with their number shown as they are taken."""
    with showing_progress(verb, lines=True) as show:

        def counted() -> Iterator[str]:
            number = 0
            for number, each in enumerate(order.ids or (), 1):
                show(BuildProgress(order.entity, number, None))
                yield each
            show(BuildProgress(order.entity, number, number))

        yield counted()
