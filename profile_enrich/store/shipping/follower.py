"""Follow the generations that are published: download each beside the old one, check it, swap it in."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ..._utils.files import private_opener, replace_private
from ..._utils.validation import check_int, check_number
from ...errors import StoreError
from ..files.manifest import MANIFEST, locked
from .object_storage import Bucket
from .shipped_manifest import CURRENT, ShippedFile, ShippedManifest, check_key, digest_of, read_signed

__all__ = ["GenerationFollower"]

_log = logging.getLogger("profile_enrich.store")

_SHIPPED = "SHIPPED"
_CHUNK = 8 << 20


class GenerationFollower:
    """Keeps a directory at the newest published generation. `LocalStore` of that directory serves it meanwhile.

    What is there already is served when the object storage is away. A download that breaks off, by whatever, is resumed
    where it ended; nothing is swapped in whose SHA-256 differs from that of the signed manifest.

    Args:
        path: the directory; made when it is not there. Nobody else may write it.
        url: what `publish_store` published to.
        key: what manifests are signed with.
        every: seconds between two looks by `start`, 30 by default.
        keep: generations whose files are kept here, 2 by default.
        options: of the object storage, e.g. `{"endpoint": …}`; the rest comes from the environment.
        clock: the time in seconds since the epoch; injectable for tests.

    Raises:
        ConfigurationError: an argument makes no sense.
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

    @property
    def ready(self) -> bool:
        """Whether there is a generation to serve."""
        return self._have is not None

    def poll(self) -> bool:
        """Take up the newest generation, if there is a newer one; return whether there was.

        Raises:
            StoreError: the object storage does not answer, the manifest is not signed with the key, or a file is not
                what the manifest says. What is served stays.
        """
        content = self._bucket.get(CURRENT)
        self._checked_at = self._clock()
        if content is None:
            raise StoreError(f"nothing is published in {self._bucket.name}; `publish_store` does it")
        new = read_signed(content, self._key, self._bucket.name)
        # An older one, well signed, is one that somebody put back: a store is not taken back in time that way.
        if self._have is not None and new.sequence <= self._have.sequence:
            return False
        problem = ""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        """What is served and how the last look went: for `/status`."""
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
        """Look now, and again until there is a generation to serve.

        Args:
            timeout: seconds after which it gives up.

        Raises:
            StoreError: there is still none; it says why.
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
        """Look every `every` seconds, in a thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="profile_enrich-generations", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. A download that it is at is resumed by the next one."""
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
        """What was downloaded before, unless it is not whole any more."""
        with contextlib.suppress(OSError, StoreError):
            have = read_signed((self._path / _SHIPPED).read_bytes(), self._key, str(self._path))
            sizes = [(self._path / file.local).stat().st_size == file.size for file in have.files]
            if all(sizes) and (self._path / MANIFEST).read_bytes() == have.local_manifest(self._key):
                return have
        return None

    def _fetch(self, file: ShippedFile) -> None:
        """Download a file, from where the last attempt ended."""
        final = self._path / file.local
        if final.exists() and final.stat().st_size == file.size and digest_of(final) == file.sha256:
            return
        part = self._path / f"{file.local}.part"
        have = part.stat().st_size if part.exists() else 0
        if have > file.size:
            part.unlink()
            have = 0
        with open(part, "ab", opener=private_opener) as output:
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
        if digest_of(part) != file.sha256:
            part.unlink()
            raise StoreError(f"a file in {self._bucket.name} is not what the signed manifest says; it is not used")
        part.replace(final)

    def _prune(self) -> None:
        """Delete the files that none of the last generations has. Servers that have them open go on reading them."""
        said = sorted(self._path.glob(f"{_SHIPPED}.[0-9]*"), key=lambda path: int(path.suffix[1:]))
        wanted: set[str] = set()
        for path in said[-self._keep :]:
            with contextlib.suppress(StoreError):
                wanted |= {file.local for file in read_signed(path.read_bytes(), self._key, str(path)).files}
        for path in said[: -self._keep]:
            path.unlink(missing_ok=True)
        for path in self._path.glob("*.db*"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
