"""`profile-enrich index publish`: publish a store's generation through object storage."""

from __future__ import annotations

from pathlib import Path

import click

from ..._utils.signals import run_in_thread
from ...errors import ConfigurationError
from ..collection_options import store_option
from ..exit_codes import guarded
from ..output import note
from ..shipping_options import SHIPPING_KEY, key_bytes, storage_options

__all__ = ["publish_command"]


@click.command("publish")
@store_option
@click.option("--to", "url", required=True, metavar="URL", help="s3://bucket/prefix, gs://…, az://…, or a directory.")
@click.option(
    "--shipping-key",
    "key",
    metavar="TEXT",
    envvar=SHIPPING_KEY,
    show_envvar=True,
    help="The key that signs the manifest.",
)
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True, help="Publications to keep.")
@click.option(
    "--storage-option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the object storage, e.g. endpoint=URL.",
)
@guarded
def publish_command(store: Path, url: str, key: str | None, keep: int, options: tuple[str, ...]) -> None:
    """Publish the current generation of a store, for servers that follow the URL.

    \b
    profile-enrich index refresh --store profiles.store
    profile-enrich index publish --store profiles.store --to s3://bucket/profiles

    Only new files are uploaded, and the signed manifest last, so an interrupted publication changes nothing. The
    credentials come from the environment (AWS_ACCESS_KEY_ID, …).
    """
    from ...store.shipping import publish_store

    if url == "-":
        raise ConfigurationError("--to: - is standard output; a publication is a directory or a URL")
    signing, more = key_bytes(key), dict(storage_options(options)) or None
    report = run_in_thread(lambda: publish_store(store, url, key=signing, keep=keep, options=more))
    if report.unchanged:
        note(f"Generation {report.generation} is published already, as number {report.sequence}.")
    else:
        note(
            f"Published generation {report.generation} as number {report.sequence}:"
            f" {report.uploaded:,} files uploaded, {report.bytes:,} bytes."
        )
