"""Publishing of a store's current generation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..._utils.validation import check_int
from ...errors import StoreError
from ..files.integrity import require_intact
from ..files.manifest import MANIFEST, read_manifest
from .object_storage import Bucket
from .shipped_manifest import CURRENT, ShippedFile, ShippedManifest, check_key, read_signed

__all__ = ["PublishReport", "publish_store"]

_ATTEMPTS = 5  # attempts, in case generations are swapped in during the upload


@dataclass(frozen=True, slots=True)
class PublishReport:
    """The result of `publish_store`.

    Args:
        sequence: the number of this publication.
        generation: the generation of the store.
        uploaded: the number of uploaded files.
        bytes: the size of the uploaded files.
        unchanged: whether this generation had already been published.
    """

    sequence: int
    generation: int
    uploaded: int = 0
    bytes: int = 0
    unchanged: bool = False


def publish_store(
    path: Path | str, url: str, *, key: bytes, keep: int = 3, options: dict[str, Any] | None = None
) -> PublishReport:
    """Publish the current generation of a local store to the servers that follow the URL.

    Only new files are uploaded; after a refresh, this is a small layer. The manifest comes last, so an interrupted
    publication changes nothing, and the next one resumes it.

    Args:
        path: the store's directory.
        url: where to publish: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///directory`, or a directory's path.
        key: the key that signs the manifest, at least 16 bytes; the same on the servers.
        keep: the number of publications kept for servers that are still downloading them. Default 3.
        options: options of the object storage, e.g. `{"endpoint": …}`; others come from the environment.

    Returns:
        What was uploaded, as a report.

    Raises:
        StoreError: the store does not exist, the object storage does not respond, or its manifest is signed with
            another key.
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
        store.pop("checksum", None)  # of the whole manifest, which holds the secret
        try:
            files = tuple(
                ShippedFile(file.name, (path / file.name).stat().st_size, file.sha256) for file in manifest.files()
            )
            if before is not None and (before.store, before.files) == (store, files):
                return PublishReport(before.sequence, before.generation, unchanged=True)
            missing = [file for file in files if bucket.size(file.remote) != file.size]
            for file in missing:
                require_intact(path / file.name, file.sha256)
                bucket.put(file.remote, path / file.name)
        except FileNotFoundError:
            continue  # a refresh merged the layers meanwhile: publish the result
        sequence = 1 if before is None else before.sequence + 1
        shipped = ShippedManifest(sequence, manifest.generation, datetime.now(UTC), store, files)
        bucket.put(shipped.remote, shipped.sign(key))
        bucket.put(CURRENT, shipped.sign(key))
        _prune(bucket, key, keep)
        return PublishReport(sequence, manifest.generation, len(missing), sum(file.size for file in missing))
    raise StoreError(f"the store in {path} changes faster than it can be published; try again")


def _prune(bucket: Bucket, key: bytes, keep: int) -> None:
    """Delete the oldest publications and the files that only they use."""
    names = bucket.names("generations/")
    wanted: set[str] = set()
    for name in names[-keep:]:
        content = bucket.get(name)
        if content is not None:
            wanted |= {file.remote for file in read_signed(content, key, bucket.name).files}
    bucket.delete(names[:-keep])
    if len(names) > keep:
        bucket.delete([name for name in bucket.names("files/") if name not in wanted])
