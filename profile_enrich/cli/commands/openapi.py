"""`profile-enrich openapi`: the OpenAPI document of the server for a store."""

from __future__ import annotations

from pathlib import Path

import click

from ...errors import ConfigurationError
from ...server.auth.api_keys import ANYONE, ApiKey
from ...server.auth.key_file import KeyFile, keys_beside
from ...server.endpoints.openapi import describe
from ...server.endpoints.postman import postman_collection
from ...store import LocalStore
from ..exit_codes import guarded
from ..output import print_json

__all__ = ["openapi"]


@click.command()
@click.option(
    "--store",
    required=True,
    type=click.Path(path_type=Path),
    envvar="PROFILE_ENRICH_STORE",
    show_envvar=True,
    help="The store to describe.",
)
@click.option("--key", "name", metavar="NAME", help="Restrict it to the scope of this key. Default: everything.")
@click.option(
    "--keys-file",
    type=click.Path(path_type=Path),
    envvar="PROFILE_ENRICH_KEYS_FILE",
    show_envvar=True,
    help="The key file. Default: STORE.keys.json, next to the store.",
)
@click.option("--server", default="/", show_default=True, metavar="URL", help="Base URL of the server.")
@click.option("--postman", is_flag=True, help="Print a Postman collection instead.")
@guarded
def openapi(store: Path, name: str | None, keys_file: Path | None, server: str, postman: bool) -> None:
    """Print the OpenAPI 3.1 document of the Profile API over a store, e.g. for a partner.

    \b
    profile-enrich openapi --store profiles.store \\
        --server https://profiles.shop.example
    profile-enrich openapi --store profiles.store --postman \\
        > profiles.postman_collection.json
    """
    with LocalStore(store) as opened:
        key = ANYONE if name is None else _key(KeyFile(keys_file or keys_beside(store)), name)
        workspace = None if name is None else key.workspace
        if postman:
            base = "http://127.0.0.1:8787" if server == "/" else server
            print_json(postman_collection(opened.collections(), key, server=base, workspace=workspace))
        else:
            print_json(describe(opened.collections(), key, server=server, workspace=workspace))


def _key(file: KeyFile, name: str) -> ApiKey:
    for each in file.stored():
        if each.key.id == name:
            return each.key
    raise ConfigurationError(f"there is no key {name!r} in {file.path}; `profile-enrich keys list` shows all")
