"""`profile-enrich keys`: API keys of the embedded Profile API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ...errors import ConfigurationError
from ...server.auth.field_scopes import FieldScope
from ...server.auth.key_file import KeyFile, StoredKey, keys_beside
from ...server.auth.rate_limits import Rate
from ...store import LocalStore
from ..exit_codes import guarded
from ..output import note, print_json, print_table, shows_table

__all__ = ["keys"]

_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Span(click.ParamType[float]):
    """A duration such as `90d`, `12h`, `30m`, `45s`; `0` for none."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _SPAN.fullmatch(str(value))
        if value == "0":
            return 0.0
        if found is None:
            self.fail("a time is written 90d, 12h, 30m or 45s", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])


def _file_options(command: Any) -> Any:
    command = click.option(
        "--keys-file",
        type=click.Path(path_type=Path),
        envvar="PROFILE_ENRICH_KEYS_FILE",
        show_envvar=True,
        help="The key file. Default: STORE.keys.json, next to the store.",
    )(command)
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        envvar="PROFILE_ENRICH_STORE",
        show_envvar=True,
        help="The store of the keys.",
    )(command)


def _open(store: Path | None, keys_file: Path | None) -> KeyFile:
    if keys_file is not None:
        return KeyFile(keys_file)
    if store is None:
        raise ConfigurationError("which keys? Give --keys-file FILE, or --store PATH of the store that they are for")
    if not store.exists():
        raise ConfigurationError(f"there is no store {store}; `profile-enrich index build` makes it")
    return KeyFile(keys_beside(store))


@click.group()
def keys() -> None:
    """Add, list, rotate and revoke API keys of the embedded Profile API.

    Running servers apply changes within a second. Secrets are shown once and stored as hashes.
    """


@keys.command()
@click.argument("name")
@_file_options
@click.option(
    "--workspace", default="default", show_default=True, metavar="NAME", help="The workspace (Amperity: tenant)."
)
@click.option("--entity", "entities", multiple=True, metavar="NAME", help="An entity that it may read. Default: all.")
@click.option(
    "--field",
    "shown",
    multiple=True,
    metavar="ENTITY:FIELD",
    help="A visible field. With --field, --hash or --redact, only the named fields and entities are visible.",
)
@click.option("--hash", "hashed", multiple=True, metavar="ENTITY:FIELD", help="A field visible as a keyed hash.")
@click.option(
    "--redact", "redacted", multiple=True, metavar="ENTITY:FIELD", help="A field of which only the presence is visible."
)
@click.option("--rate", metavar="RATE", help="The rate limit: 100/s, 700/m, 5000/h, or a vendor's: amperity.")
@click.option("--expires", type=_Span(), metavar="TIME", help="The time until it expires: 90d, 12h. Default: never.")
@click.option("--admin", is_flag=True, help="It may also write single records.")
@guarded
def add(
    name: str,
    store: Path | None,
    keys_file: Path | None,
    workspace: str,
    entities: tuple[str, ...],
    shown: tuple[str, ...],
    hashed: tuple[str, ...],
    redacted: tuple[str, ...],
    rate: str | None,
    expires: float | None,
    admin: bool,
) -> None:
    """Add a key and print its secret once, on stdout.

    \b
    profile-enrich keys add website --store profiles.store
    profile-enrich keys add partner --store profiles.store --field Users:user_id \\
        --field Users:tier \\
        --hash Users:email --rate 100/s --expires 90d
    """
    fields = _scopes(shown, hashed, redacted)
    _check_names(store, entities, fields)
    allowed = {*entities, *fields} if entities or fields else None
    key, secret = _open(store, keys_file).add(
        name,
        workspace=workspace,
        entities=allowed,
        fields=fields,
        rate=None if rate is None else Rate.parse(rate),
        admin=admin,
        expires_in=expires,
    )
    note(f"The key {key.id} was made. Its secret is shown this once; it is stored as a hash:")
    click.echo(secret)


@keys.command("list")
@_file_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON also on a terminal.")
@guarded
def list_(store: Path | None, keys_file: Path | None, as_json: bool) -> None:
    """List the keys, without anything secret.

    On a terminal as a table, otherwise (or with --json) as JSON.
    """
    file = _open(store, keys_file)
    rows = [_row(each) for each in file.stored()]
    if not shows_table(as_json):
        print_json(rows)
    elif rows:
        columns = ["id", "workspace", "entities", "fields", "rate", "admin", "created", "expires", "rotated"]
        print_table(columns, [[_cell(row[name]) for name in columns] for row in rows])
    if not rows:
        note(f"There are no keys in {file.path}.")


@keys.command()
@click.argument("name")
@_file_options
@guarded
def revoke(name: str, store: Path | None, keys_file: Path | None) -> None:
    """Revoke a key: within a second, the key and its tokens are invalid."""
    _open(store, keys_file).revoke(name)
    note(f"The key {name} is gone.")


@keys.command()
@click.argument("name")
@_file_options
@click.option(
    "--grace",
    type=_Span(),
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old secret stays valid.",
)
@guarded
def rotate(name: str, store: Path | None, keys_file: Path | None, grace: float) -> None:
    """Replace the secret of a key and print it once, on stdout. The old one stays valid for --grace."""
    secret = _open(store, keys_file).rotate(name, grace=grace)
    until = "ends now" if not grace else f"is good for {grace / 3600:g} h more"
    note(f"The new secret of {name} is shown this once; the old one {until}:")
    click.echo(secret)


def _scopes(shown: Iterable[str], hashed: Iterable[str], redacted: Iterable[str]) -> dict[str, FieldScope]:
    named: dict[str, dict[str, set[str]]] = {}
    for kind, option, texts in (
        ("show", "--field", shown),
        ("hash", "--hash", hashed),
        ("redact", "--redact", redacted),
    ):
        for text in texts:
            # Split at the first colon, since column names may have colons.
            entity, colon, field = text.partition(":")
            if not colon or not entity or not field:
                raise ConfigurationError(f"{option} is written ENTITY:FIELD, e.g. Users:email")
            named.setdefault(entity, {}).setdefault(kind, set()).add(field)
    return {
        entity: FieldScope(**{kind: frozenset(names) for kind, names in kinds.items()})
        for entity, kinds in named.items()
    }


def _check_names(store: Path | None, entities: Iterable[str], fields: Mapping[str, FieldScope]) -> None:
    """Check that the store has the entities and fields of a key, if a store is given.

    Raises:
        ConfigurationError: an entity or field does not exist.
    """
    if store is None or not (store / "CURRENT").exists():
        return
    with LocalStore(store) as opened:
        columns = {item.name: [column.name for column in item.columns] for item in opened.collections()}
    for entity in (*entities, *fields):
        if entity not in columns:
            raise ConfigurationError(f"{store} has no entity {entity!r}; it has: {', '.join(columns)}")
    for entity, scope in fields.items():
        for field in sorted(scope.named - set(columns[entity])):
            raise ConfigurationError(f"{entity} has no field {field!r}; it has: {', '.join(columns[entity])}")


def _row(stored: StoredKey) -> dict[str, Any]:
    key = stored.key
    return {
        "id": key.id,
        "workspace": key.workspace,
        "entities": None if key.entities is None else sorted(key.entities),
        "fields": {
            entity: {kind: sorted(names) for kind in ("show", "hash", "redact") if (names := getattr(scope, kind))}
            for entity, scope in key.fields.items()
        }
        or None,
        "rate": None if key.rate is None else str(key.rate),
        "admin": key.admin,
        "created": _time(stored.created_at),
        "expires": _time(key.expires_at),
        "rotated": _time(stored.rotated_at),
        "old_secret_until": _time(key.previous_until if key.previous is not None else None),
    }


def _cell(value: object) -> object:
    if value is None:
        return "-"
    return "yes" if value is True else "no" if value is False else value


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
