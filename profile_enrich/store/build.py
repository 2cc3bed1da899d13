"""Builds collections and swaps them in at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from .model import BuildReport, CollectionSpec, Progress

__all__ = ["build_store"]


def build_store(
    path: Path | str,
    collections: Sequence[CollectionSpec],
    *,
    on_duplicate: Literal["last", "fail"] = "last",
    progress: Callable[[Progress], None] | None = None,
) -> BuildReport:
    """Builds collections from files or iterables and swaps them in at once.

    A store is a directory. Collections of it that are not named here stay as they are. The new data are written beside
    the old and become visible all together, by one atomic rename, at the very end; when the process is killed before that, the old data
    are untouched, and what was left behind is cleaned up by the next build. Readers notice the change by themselves.

    Args:
        path: the store's directory; made when it is not there.
        collections: what to build.
        on_duplicate: what to do when two rows have the same key: keep the `"last"`, or `"fail"`.
        progress: called with how far the build is.

    Returns:
        What was read, stored, replaced and left out, for each collection.

    Raises:
        StoreError: a file cannot be read, has no such column, wrong encoding, broken lines, duplicate keys with
            `on_duplicate="fail"`; or another build of this store is running. It names the file and, where it can, the
            line; never a value.
        MissingExtraError: reading CSV and Parquet files needs the extra `server`.
        ConfigurationError: the specification contradicts itself.
    """
    raise NotImplementedError
