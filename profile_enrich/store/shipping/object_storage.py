"""Object storage through obstore: S3, Google Cloud Storage, Azure, or a directory."""

from __future__ import annotations

import glob
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..._utils.optional_import import import_extra
from ..._utils.signals import on_signal
from ...errors import ConfigurationError, StoreError

__all__ = ["Bucket"]

obstore: Any = import_extra("obstore", "object storage", "object-storage")
stores: Any = import_extra("obstore.store", "object storage", "object-storage")


class Bucket:
    """A prefix of a bucket, or a directory.

    Args:
        url: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///directory`, or the path of a directory.
        options: obstore's options, e.g. `{"endpoint": "http://127.0.0.1:9000"}`. Others come from the environment
            (`AWS_ACCESS_KEY_ID`, …).
        timeout: the timeout of one request, in seconds.

    Raises:
        ConfigurationError: the URL or an option is unknown.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None, *, timeout: float = 30.0) -> None:
        self.name = url.partition("?")[0]
        if "://" not in url:
            url = Path(url).absolute().as_uri()
        self._directory = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
        more: dict[str, Any] = {"mkdir": True}
        if not url.startswith("file:"):
            plain = str((options or {}).get("endpoint", "")).startswith("http://")
            more = {
                "config": options or {},
                "client_options": {"timeout": timedelta(seconds=timeout), "allow_http": plain},
                "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=timeout)},
            }
        problem = ""
        try:
            self._store = stores.from_url(url, **more)
        except Exception as error:  # noqa: BLE001  # obstore's own classes, and those of its extension
            problem = type(error).__name__
        if problem:
            raise ConfigurationError(
                f"{self.name} cannot be used as object storage ({problem}); s3://, gs://, az:// and file:// are known"
            )

    def get(self, path: str) -> bytes | None:
        """Return a small object; `None` if there is none.

        Raises:
            StoreError: the object storage does not respond.
        """
        with self._saying("read"):
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError:
                return None

    def get_range(self, path: str, start: int, end: int) -> bytes | None:
        """Return the bytes of an object from `start` to before `end`; `None` if there is no such object.

        Raises:
            StoreError: the object storage does not respond.
        """
        with self._saying("read"):
            try:
                return bytes(obstore.get_range(self._store, path, start=start, end=end))
            except FileNotFoundError:
                return None

    def size(self, path: str) -> int | None:
        """Return the size of an object; `None` if there is none.

        Raises:
            StoreError: the object storage does not respond.
        """
        with self._saying("read"):
            try:
                return int(obstore.head(self._store, path)["size"])
            except FileNotFoundError:
                return None

    def put(self, path: str, content: bytes | Path) -> None:
        """Write an object atomically. A signal, and the next attempt, remove the unfinished file in a directory.

        Raises:
            StoreError: the object storage refuses the request or does not respond.
        """
        with self._saying("written"), on_signal(lambda _: self._remove_unfinished(path)):
            self._remove_unfinished(path)
            obstore.put(self._store, path, content)

    def _remove_unfinished(self, path: str) -> None:
        if self._directory is not None:  # obstore adds "#" and a number to the name until the file is complete
            final = self._directory / path
            for file in final.parent.glob(f"{glob.escape(final.name)}#*"):
                file.unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        """List the names of the objects below a prefix, in order.

        Raises:
            StoreError: the object storage does not respond.
        """
        with self._saying("read"):
            return sorted(item["path"] for part in obstore.list(self._store, prefix) for item in part)

    def delete(self, paths: list[str]) -> None:
        """Delete objects.

        Raises:
            StoreError: the object storage refuses the request or does not respond.
        """
        with self._saying("written"):
            for path in paths:
                obstore.delete(self._store, path)

    @contextmanager
    def _saying(self, what: str) -> Generator[None]:
        problem = ""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # obstore's own classes; their texts hold whole requests
            problem = type(error).__name__
        if problem:
            raise StoreError(f"{self.name} cannot be {what} ({problem})")
