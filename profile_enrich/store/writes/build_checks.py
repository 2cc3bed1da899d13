"""Checks of a build: its specifications, and what it would store or lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..._utils.text_encoding import sniff
from ...errors import ConfigurationError, StoreError
from ..collection_specs import MAX_INDEX_FIELDS, CollectionSpec
from ..inputs.rejects import Rejects

__all__ = ["check_any_stored", "check_shrink", "check_specs"]


def check_specs(specs: Sequence[CollectionSpec], on_duplicate: str) -> None:
    """Check the specifications of a build, each by itself and all together.

    Raises:
        ConfigurationError: it names the argument and the remedy.
    """
    if on_duplicate not in ("last", "fail"):
        raise ConfigurationError(f"on_duplicate is 'last' or 'fail', not {on_duplicate!r}")
    if not specs:
        raise ConfigurationError("no collection was given to build")
    names = [spec.name for spec in specs]
    for spec in specs:
        if not spec.name or len(spec.name) > 200 or not spec.name.isprintable():
            raise ConfigurationError("the name of a collection has 1 to 200 printable characters")
        if names.count(spec.name) > 1:
            raise ConfigurationError(f"two collections are named {spec.name!r}")
        for argument, value in (
            ("filterable", spec.filterable),
            ("fields", spec.fields),
            ("index_fields", spec.index_fields),
        ):
            if isinstance(value, str):
                raise ConfigurationError(f"{argument} is a sequence of column names, not one string: [{value!r}]")
            if value is not None and len(set(value)) < len(value):
                raise ConfigurationError(f"{argument} names a column twice")
        if spec.index_fields is not None and len(spec.index_fields) > MAX_INDEX_FIELDS:
            raise ConfigurationError(
                f"an index has at most {MAX_INDEX_FIELDS} fields; index_fields names {len(spec.index_fields)}"
            )
        shown = set(spec.index_fields or ())
        for argument, outer, inner in (
            ("fields", spec.fields, shown | set(spec.filterable)),
            ("index_fields", spec.index_fields, set(spec.filterable)),
        ):
            # Filters must not reveal fields that the index does not show.
            if outer is not None and (missing := inner - {*outer, spec.key}):
                raise ConfigurationError(f"{sorted(missing)} must also be among {argument}")
        if spec.description.encode(errors="replace").decode() != spec.description:
            raise ConfigurationError("the description is not valid Unicode")
        if spec.delimiter is not None and len(spec.delimiter) != 1:
            raise ConfigurationError("the delimiter is one character")
        sniff(b"", spec.encoding)  # it raises for an encoding that does not exist


def check_shrink(name: str, rows: int, lost: int, max_shrink: float, rejected: Mapping[str, int]) -> None:
    """Check that a change does not lose too many records of a collection.

    Args:
        name: the collection.
        rows: its records.
        lost: how many of them the change would lose.
        max_shrink: the share that it may lose, from 0 to 1.
        rejected: why rows of the source were left out, each with their number.

    Raises:
        StoreError: more than this share would be lost.
    """
    if lost > rows * max_shrink:
        why = f" Rows were left out: {_listed(rejected)}." if rejected else ""
        raise StoreError(
            f"{name} would lose {lost:,} of its {rows:,} records, more than {max_shrink:.0%}; the store is"
            f" unchanged.{why}"
            " Is the source complete, and its key column unchanged? If this is intended, allow it to shrink"
        )


def _listed(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{reason} ({count:,})" for reason, count in reasons.items())


def check_any_stored(where: str, read: int, rejects: Rejects) -> None:
    """Reject a source that has rows of which none can be stored.

    Raises:
        StoreError: all were left out; it says why.
    """
    if read and sum(rejects.reasons.values()) == read:
        raise StoreError(
            f"{where}: none of its {read:,} rows can be stored: {_listed(rejects.reasons)}; the store is unchanged"
        )
