"""Follower of published generations: download each next to the old one, verify it, swap it in."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ..._utils.files import OpenDirectory, make_directory, replace_private
from ..._utils.output_paths import OutputPath, check_output_paths
from ..._utils.validation import check_int, check_number
from ...errors import ConfigurationError, StoreError
from ..files.integrity import digest_of
from ..files.manifest import MANIFEST, data_files, locked
from .object_storage import Bucket
from .shipped_manifest import CURRENT, ShippedFile, ShippedManifest, check_key, read_signed

__all__ = ["GenerationFollower"]

_log = logging.getLogger("profile_enrich.store")

_SHIPPED = "SHIPPED"
_CHUNK = 8 << 20


class GenerationFollower:
    """Keep a directory at the newest published generation, which a `LocalStore` of that directory serves.

    If the object storage is unavailable, the present generation is still served. An interrupted download is resumed. A
    generation is swapped in only if every SHA-256 matches the signed manifest.

    Args:
        path: the directory; created if it does not exist. Nothing else may write to it.
        url: the URL that was passed to `publish_store`.
        key: the key that signs manifests.
        every: seconds between checks after `start`. Default 30.
        keep: the number of generations whose files are kept. Default 2.
        options: options of the object storage, e.g. `{"endpoint": …}`; others come from the environment.
        clock: the time in seconds since the epoch; injectable for tests.

    Raises:
        ConfigurationError: an argument is invalid, or the directory holds other files.
        MissingExtraError: the extra `object-storage` is not installed.
    """

    def __init__(
        self,
        path: Path | str,
        url: str,
        *,
        key: bytes,
        every: float = 30.0,
        keep: int = 2,
        options: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        check_output_paths([OutputPath(self._path, "the store", kind="directory")])
        self._refuse_foreign_files()
        self._bucket = Bucket(url, options)
        self._key = check_key(key)
        self._every = check_number("every", every, positive=True)
        self._keep = check_int("keep", keep)
        self._clock = clock
        self._have = self._read_local()
        self._checked_at: float | None = None
        self._error = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _refuse_foreign_files(self) -> None:
        """Reject a directory with other files, e.g. a store that was built in it and would be overwritten."""
        if not self._path.is_dir() or (self._path / _SHIPPED).exists():
            return
        known = {"LOCK", *(file.name for file in data_files(self._path))}  # the files of an interrupted first download
        if any(file.name not in known and not file.name.startswith(f"{_SHIPPED}.") for file in self._path.iterdir()):
            raise ConfigurationError(
                f"{self._path} holds files that were not published; give a new or an empty directory for the copy"
            )

    @property
    def ready(self) -> bool:
        """Whether a generation is available to serve."""
        return self._have is not None

    def poll(self) -> bool:
        """Download and swap in a newer generation; return true if there was one.

        Raises:
            StoreError: the object storage does not respond, the manifest is not signed with the key, or a file does not
                match the manifest. The served generation stays.
        """
        content = self._bucket.get(CURRENT)
        self._checked_at = self._clock()
        if content is None:
            raise StoreError(f"nothing is published in {self._bucket.name}; `publish_store` does it")
        new = read_signed(content, self._key, self._bucket.name)
        # Reject an older manifest even if its signature is valid, so that a replay cannot roll the store back.
        if self._have is not None and new.sequence <= self._have.sequence:
            return False
        problem = ""
        try:
            make_directory(self._path)
            for file in new.files:
                self._fetch(file)
            with locked(self._path, wait=5):
                replace_private(self._path / f"{_SHIPPED}.{new.sequence}", content)
                replace_private(self._path / MANIFEST, new.local_manifest(self._key))
                replace_private(self._path / _SHIPPED, content)
                self._have = new
                self._prune()
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem:
            raise StoreError(f"the directory {self._path} cannot be written: {problem}")
        return True

    def status(self) -> Mapping[str, Any]:
        """Return the served generation and the result of the last check, for `/status`."""
        have = self._have
        return {
            "from": self._bucket.name,
            "sequence": None if have is None else have.sequence,
            "generation": None if have is None else have.generation,
            "published_at": None if have is None else have.published_at.isoformat(timespec="seconds"),
            "age_seconds": None if have is None else round(self._clock() - have.published_at.timestamp(), 1),
            "checked_at": None
            if self._checked_at is None
            else datetime.fromtimestamp(self._checked_at, UTC).isoformat(timespec="seconds"),
            "last_error": self._error or None,
        }

    def wait_until_ready(self, timeout: float) -> None:
        """Check repeatedly until a generation is available.

        Args:
            timeout: seconds to wait.

        Raises:
            StoreError: there is still none; the message gives the reason.
        """
        end = time.monotonic() + timeout
        while True:
            self._look()
            if self.ready:
                return
            if time.monotonic() >= end:
                raise StoreError(self._error)
            self._stop.wait(min(1.0, self._every))

    def start(self) -> None:
        """Check every `every` seconds, in a thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="profile_enrich-generations", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. The next one resumes an interrupted download."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None

    def __enter__(self) -> GenerationFollower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GenerationFollower {self._path} from {self._bucket.name}>"

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._look()

    def _look(self) -> None:
        try:
            self.poll()
        except StoreError as failure:
            if failure.message != self._error:
                _log.warning("what is here is served on: %s", failure.message)
            self._error = failure.message
        else:
            self._error = ""

    def _read_local(self) -> ShippedManifest | None:
        """Read the local manifest, unless a file is missing or damaged."""
        with contextlib.suppress(OSError, StoreError):
            have = read_signed((self._path / _SHIPPED).read_bytes(), self._key, str(self._path))
            sizes = [(self._path / file.local).stat().st_size == file.size for file in have.files]
            if all(sizes) and (self._path / MANIFEST).read_bytes() == have.local_manifest(self._key):
                return have
        return None

    def _fetch(self, file: ShippedFile) -> None:
        """Download a file, resuming the last attempt."""
        final = self._path / file.local
        if final.exists() and final.stat().st_size == file.size and digest_of(final) == file.sha256:
            return
        part = f"{file.local}.part"
        with (
            contextlib.closing(OpenDirectory(self._path)) as directory,
            open(part, "a+b", opener=directory.opener) as output,
        ):
            have = output.tell()
            if have > file.size:
                have = output.truncate(0)
            while have < file.size:
                chunk = self._bucket.get_range(file.remote, have, min(have + _CHUNK, file.size))
                if not chunk:
                    raise StoreError(f"{self._bucket.name} lacks a file of the newest generation; look again later")
                output.write(chunk)
                output.flush()
                have += len(chunk)
                if self._stop.is_set() and have < file.size:
                    raise StoreError("the download was interrupted; the next one goes on with it")
            os.fsync(output.fileno())
            output.seek(0)
            if hashlib.file_digest(output, "sha256").hexdigest() != file.sha256:
                directory.unlink(part)
                raise StoreError(f"a file in {self._bucket.name} is not what the signed manifest says; it is not used")
            directory.rename(part, file.local)

    def _prune(self) -> None:
        """Delete the files that none of the last generations uses. Servers that have them open can still read them."""
        said = sorted(self._path.glob(f"{_SHIPPED}.[0-9]*"), key=lambda path: int(path.suffix[1:]))
        wanted: set[str] = set()
        for path in said[-self._keep :]:
            with contextlib.suppress(StoreError):
                wanted |= {file.local for file in read_signed(path.read_bytes(), self._key, str(path)).files}
        for path in said[: -self._keep]:
            path.unlink(missing_ok=True)
        for path in data_files(self._path):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
