"""The signed manifest of a published generation.

```text
CURRENT                      the newest manifest
generations/00000012.json    the manifests that are kept
files/<sha256>               their data files, each once
```

The signature is an HMAC-SHA256 with a key that publisher and servers share. The store's secret is not published: each
server derives one from the key, so page tokens work on all servers.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from ...errors import ConfigurationError, StoreError
from ..files.manifest import manifest_bytes

__all__ = ["CURRENT", "ShippedFile", "ShippedManifest", "check_key"]

CURRENT = "CURRENT"

_FORMAT = 1
_MIN_KEY = 16


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """One data file.

    Args:
        name: the name in the published store.
        size: the size in bytes.
        sha256: the SHA-256 of its content, in hexadecimal.
    """

    name: str
    size: int
    sha256: str

    @property
    def remote(self) -> str:
        """The name of the file in the object storage."""
        return f"files/{self.sha256}"

    @property
    def local(self) -> str:
        """The name of the file in a server's store, derived from its content."""
        return f"{self.sha256[:40]}.db"


@dataclass(frozen=True, slots=True)
class ShippedManifest:
    """One published generation.

    Args:
        sequence: the number of the publication; it also grows if the store is rebuilt from scratch.
        generation: the generation of the store.
        published_at: the time of publication, UTC.
        store: the store's own manifest, as JSON, without its secret.
        files: the data files.
    """

    sequence: int
    generation: int
    published_at: datetime
    store: dict[str, Any]
    files: tuple[ShippedFile, ...]

    @property
    def remote(self) -> str:
        """The name of the manifest in the object storage."""
        return f"generations/{self.sequence:08}.json"

    def sign(self, key: bytes) -> bytes:
        """Return the signed manifest as bytes."""
        body = json.dumps(
            {
                "format": _FORMAT,
                "sequence": self.sequence,
                "generation": self.generation,
                "published_at": self.published_at.isoformat(),
                "store": self.store,
                "files": [[file.name, file.size, file.sha256] for file in self.files],
            }
        )
        return json.dumps({"manifest": body, "signature": _signature(key, body)}).encode()

    def local_manifest(self, key: bytes) -> bytes:
        """Return the manifest of a server's copy, with local file names and a secret."""
        names = {file.name: file.local for file in self.files}
        collections = [
            {**item, "files": [[names[name], *rest] for name, *rest in item["files"]]}
            for item in self.store["collections"]
        ]
        secret = hmac.digest(key, b"secret of the store", "sha256").hex()
        content = {**self.store, "collections": collections, "secret": secret}
        content.pop("checksum", None)
        return manifest_bytes(content)


def read_signed(content: bytes, key: bytes, where: str) -> ShippedManifest:
    """Verify the signature of a manifest and parse it.

    Raises:
        StoreError: the manifest is not signed with this key, or has another format version.
    """
    body: Any = None
    try:
        envelope = json.loads(content)
        body, signature = envelope["manifest"], envelope["signature"]
        genuine = hmac.compare_digest(_signature(key, body).encode(), str(signature).encode())
    except (ValueError, KeyError, TypeError, AttributeError):
        genuine = False
    if not genuine:
        raise StoreError(f"the manifest in {where} is not signed with this key, or was modified; it is not used")
    try:
        said = cast("dict[str, Any]", json.loads(body))
        if said["format"] == _FORMAT:
            return ShippedManifest(
                sequence=int(said["sequence"]),
                generation=int(said["generation"]),
                published_at=datetime.fromisoformat(said["published_at"]).astimezone(UTC),
                store=said["store"],
                files=tuple(ShippedFile(str(name), int(size), str(sha)) for name, size, sha in said["files"]),
            )
    except (ValueError, KeyError, TypeError):
        pass
    raise StoreError(f"the manifest in {where} is of another version of the format; publish with this version")


def check_key(key: object) -> bytes:
    """Check the key that signs manifests.

    Raises:
        ConfigurationError: the key is not bytes, or too short.
    """
    if not isinstance(key, bytes) or len(key) < _MIN_KEY:
        raise ConfigurationError(
            f"key must be at least {_MIN_KEY} bytes, the same where the store is published and served"
        )
    return key


def _signature(key: bytes, body: str) -> str:
    return hmac.digest(key, b"generation\0" + body.encode(), "sha256").hex()
