"""Publish the generation that a store has now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..._utils.validation import check_int
from ...errors import StoreError
from ..files.manifest import MANIFEST, read_manifest
from .object_storage import Bucket
from .shipped_manifest import CURRENT, ShippedFile, ShippedManifest, check_key, digest_of, read_signed

__all__ = ["PublishReport", "publish_store"]

_ATTEMPTS = 5  # generations that are swapped in while files are uploaded


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What `publish_store` did.

    Args:
        sequence: the number of this publication.
        generation: of the store.
        uploaded: files that were not there before.
        bytes: of the files uploaded.
        unchanged: whether this generation was published already; then nothing was done.
    """

    sequence: int
    generation: int
    uploaded: int = 0
    bytes: int = 0
    unchanged: bool = False


def publish_store(
    path: Path | str, url: str, *, key: bytes, keep: int = 3, options: dict[str, Any] | None = None
) -> PublishReport:
    """Publish the generation that a local store has now; servers that follow the URL take it up.

    Only files that are not there yet are uploaded: after a refresh, a small layer. The manifest comes last, so that a
    publication that breaks off changes nothing, and the next one goes on where it ended.

    Args:
        path: the store's directory.
        url: where to publish: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///directory`, or a directory's path.
        key: what the manifest is signed with, at least 16 bytes; the servers have the same.
        keep: publications that are kept, for servers that are still downloading them; 3 by default.
        options: of the object storage, e.g. `{"endpoint": …}`; the rest comes from the environment.

    Returns:
        What was uploaded.

    Raises:
        StoreError: there is no such store, the object storage does not answer, or what is published there is signed
            with another key.
        MissingExtraError: the extra `object-storage` is not installed.
    """
    path, bucket = Path(path), Bucket(url, options)
    check_key(key)
    check_int("keep", keep)
    known = bucket.get(CURRENT)
    before = None if known is None else read_signed(known, key, bucket.name)
    for _ in range(_ATTEMPTS):
        manifest = read_manifest(path)
        store = json.loads((path / MANIFEST).read_bytes())
        if store.get("generation") != manifest.generation:
            continue
        store.pop("secret", None)
        store.pop("checksum", None)  # of the whole, which holds the secret
        try:
            names = [file.name for parts in manifest.parts.values() for file in parts.files]
            files = tuple(
                ShippedFile(name, (path / name).stat().st_size, digest_of(path / name)) for name in dict.fromkeys(names)
            )
            if before is not None and (before.store, before.files) == (store, files):
                return PublishReport(before.sequence, before.generation, unchanged=True)
            missing = [file for file in files if bucket.size(file.remote) != file.size]
            for file in missing:
                bucket.put(file.remote, path / file.name)
        except FileNotFoundError:
            continue  # a refresh merged its layers meanwhile: publish what it made
        sequence = 1 if before is None else before.sequence + 1
        shipped = ShippedManifest(sequence, manifest.generation, datetime.now(UTC), store, files)
        bucket.put(shipped.remote, shipped.sign(key))
        bucket.put(CURRENT, shipped.sign(key))
        _prune(bucket, key, keep)
        return PublishReport(sequence, manifest.generation, len(missing), sum(file.size for file in missing))
    raise StoreError(f"the store in {path} changes faster than it can be published; try again")


def _prune(bucket: Bucket, key: bytes, keep: int) -> None:
    """Delete the oldest publications, and the files that only they had."""
    names = bucket.names("generations/")
    wanted: set[str] = set()
    for name in names[-keep:]:
        content = bucket.get(name)
        if content is not None:
            wanted |= {file.remote for file in read_signed(content, key, bucket.name).files}
    bucket.delete(names[:-keep])
    if len(names) > keep:
        bucket.delete([name for name in bucket.names("files/") if name not in wanted])
