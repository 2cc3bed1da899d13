"""Refresh of a store from its saved sources, one process at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ...errors import ConfigurationError, ProfileEnrichError, StoreBusy
from ..build_reports import BuildProgress, BuildReport, RefreshReport
from ..collection_specs import MAX_SHRINK, CollectionSpec, RefreshSpec
from ..files.manifest import read_manifest
from ..inputs.source_config import read_recipe
from .build import build_store
from .refresh import VANISHED_AND_REJECTS, refresh_store
from .refresh_status import begin_refresh, note_refresh, read_last_refresh, refreshing_alone, withdraw_refresh

__all__ = ["changes_of", "check_vanished", "refresh_from_sources"]


def refresh_from_sources(
    path: Path | str,
    specs: Sequence[CollectionSpec] | None = None,
    *,
    changed_only: bool = False,
    vanished: Literal["keep", "delete"] = "keep",
    new_columns: Literal["fail", "ignore"] = "fail",
    on_duplicate: Literal["last", "fail"] = "last",
    max_shrink: float = MAX_SHRINK,
    since: datetime | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
) -> BuildReport | RefreshReport | None:
    """Build the next generation of a store's collections beside the served one, and swap it in.

    The outcome is saved in the store's directory, where `read_last_refresh` and the server's status read it.

    Args:
        path: the store's directory.
        specs: the collections to refresh; by default all whose sources `index build` saved.
        changed_only: write only the rows that differ from the stored records (see `refresh_store`); otherwise all.
        vanished: with `changed_only`, what to do with records that the sources no longer have.
        new_columns: with `changed_only`, what to do if a source of which all fields are kept has columns that the
            collection lacks: `"fail"`, or `"ignore"` them. A full refresh adds them.
        on_duplicate: as in `build_store`.
        max_shrink: the share of records that a collection may lose, from 0 to 1. Default 0.2.
        since: do nothing if another refresh started after this time (UTC); `None` always refreshes.
        progress: as in `build_store`.

    Returns:
        The report; `None` if another process has refreshed the store since then.

    Raises:
        StoreBusy: another process is refreshing or building the store; no outcome is saved.
        StoreError: as `build_store`; the old data are unchanged.
        ConfigurationError: the sources are unknown; or see `check_vanished`.
    """
    path = Path(path)
    check_vanished(vanished, changed_only, specs or ())
    read_manifest(path)  # the store must exist
    with refreshing_alone(path):
        last = read_last_refresh(path)
        if since is not None and last is not None and last.started_at > since:
            return None
        began = datetime.now(UTC)
        problem = "it failed in an unexpected way"
        begin_refresh(path, began)
        try:
            sources = read_recipe(path) if specs is None else list(specs)
            if not sources:
                raise ConfigurationError(
                    f"the sources of the store in {path} are unknown: specify them, or build it with"
                    " `profile-enrich index build`"
                )
            report: BuildReport | RefreshReport
            if changed_only:
                check_vanished(vanished, changed_only, sources)
                changes = [changes_of(spec, vanished, new_columns) for spec in sources]
                report = refresh_store(
                    path, changes, on_duplicate=on_duplicate, max_shrink=max_shrink, progress=progress
                )
            else:
                report = build_store(path, sources, on_duplicate=on_duplicate, max_shrink=max_shrink, progress=progress)
        except StoreBusy:
            problem = ""
            withdraw_refresh(path)
            raise
        except ProfileEnrichError as error:
            problem = error.message
            raise
        except KeyboardInterrupt:
            problem = "it was interrupted"
            raise
        else:
            problem = ""
            note_refresh(path, began, None)
        finally:
            if problem:
                note_refresh(path, began, problem)
    return report


def check_vanished(vanished: str, changed_only: bool, specs: Sequence[CollectionSpec]) -> None:
    """Check that vanished records can be detected.

    Raises:
        ConfigurationError: it is a full build; or malformed lines are rejected, so that their records would count as
            vanished.
    """
    if vanished == "delete" and not changed_only:
        raise ConfigurationError(
            "a full refresh has what the sources have, nothing else; vanished='delete' needs changed_only=True"
        )
    for spec in specs if vanished == "delete" else ():
        if spec.rejects is not None:
            raise ConfigurationError(VANISHED_AND_REJECTS.format(spec.name))


def changes_of(
    spec: CollectionSpec, vanished: Literal["keep", "delete"], new_columns: Literal["fail", "ignore"]
) -> RefreshSpec:
    """Return the specification that compares all rows of a collection's source with what is stored."""
    return RefreshSpec(
        spec.name,
        spec.source,
        vanished=vanished,
        new_columns=new_columns if spec.fields is None else "ignore",
        encoding=spec.encoding,
        delimiter=spec.delimiter,
        format=spec.format,
        rejects=spec.rejects,
    )
