"""A store of this package as a source, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from .._utils.deadline import Deadline
from .._utils.validation import check_text, is_int
from ..errors import AmbiguousMatch, ConfigurationError, InvalidKeyError, SourceUnavailable, StoreError
from ..profile import ProfileKey, Record
from ..store import Collection, LocalStore, ProfileStore, StoredRecord
from .base import Found, NotFound, SourceResult, Validators

__all__ = ["StoreSource"]


class StoreSource:
    """Look up profiles in one collection of a store, by key or by any filterable attribute.

    `ProfileKey("478060")` fetches the record with that key; `ProfileKey("a@b.example", type="email")` fetches the
    record whose `email` equals that value. A lookup in a local store takes microseconds and runs on the event loop; one
    in PostgreSQL runs in a thread. A new generation of the store is picked up automatically.

    Args:
        store: the store, or its path; the source closes a store that it opened from a path.
        collection: the collection's name, index id (`"idx-…"`) or entity id.
        on_multiple: what to do when an attribute matches more than one record: `"error"` (raise `AmbiguousMatch`) or
            `"first"`.

    Raises:
        StoreError: the store or collection does not exist.
        ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        store: ProfileStore | Path | str,
        *,
        collection: str | int,
        on_multiple: Literal["error", "first"] = "error",
    ) -> None:
        if not (is_int(collection) or isinstance(collection, str)) or collection == "":
            raise ConfigurationError("collection must be the collection's name or id")
        if isinstance(store, str):
            check_text("store", store)
        if on_multiple not in ("error", "first"):
            raise ConfigurationError(f"on_multiple is 'error' or 'first', not {on_multiple!r}")
        self._owns = isinstance(store, Path | str)
        self._store = LocalStore(store) if isinstance(store, Path | str) else store
        # The entity id stays the same when the store is rebuilt.
        self._id = self._store.collection(collection).id
        self._on_multiple = on_multiple

    @property
    def name(self) -> str:
        """`"store"`."""
        return "store"

    @property
    def namespace(self) -> str:
        """The store's own namespace and the collection."""
        return f"{self._store.namespace}:{self._id}"

    @property
    def collection(self) -> Collection:
        """The collection in its current generation.

        Raises:
            StoreError: it was dropped.
        """
        return self._store.collection(self._id)

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Look up one profile; see `ProfileSource.fetch`.

        A remote store is queried in a thread, with its own time limit.
        """
        problem = ""
        try:
            found = await asyncio.to_thread(self._find, key) if self._store.blocking else self._find(key)
            if found is None:
                return NotFound()
            return Found(Record(found.attributes, id=found.id, source=self.name))
        except (InvalidKeyError, AmbiguousMatch):
            raise
        except StoreError as error:
            problem = error.message
        except (ValueError, RecursionError):
            problem = "the record is nested too deeply"
        raise SourceUnavailable(problem)

    def local_reader(self) -> Callable[[Sequence[str]], Mapping[str, Mapping[str, object]]] | None:
        """Return a reader of a local store; `None` for a remote one. See `LocalSource`."""
        return self._read if type(self) is StoreSource and isinstance(self._store, LocalStore) else None

    def _read(self, ids: Sequence[str]) -> dict[str, dict[str, object]]:
        assert isinstance(self._store, LocalStore)  # noqa: S101  # by `local_reader`
        problem = ""
        try:
            return self._store.get_many(self._id, ids)
        except StoreError as error:
            problem = error.message
        except (ValueError, RecursionError):
            problem = "a record is nested too deeply"
        raise SourceUnavailable(problem)

    def _find(self, key: ProfileKey) -> StoredRecord | None:
        if key.type == "id":
            return self._store.get(self._id, key.value)
        collection = self.collection
        if key.type not in collection.filterable:
            allowed = ", ".join(["id", *collection.filterable])
            raise InvalidKeyError(
                f"the collection {collection.name!r} cannot be looked up by this key type; it has: {allowed}"
            )
        found = self._store.search(self._id, {key.type: key.value}, limit=2)
        if len(found) > 1 and self._on_multiple == "error":
            raise AmbiguousMatch(f"more than one record of {collection.name!r} has this {key.type}")
        return found[0] if found else None

    async def aclose(self) -> None:
        """Close the store, if the source opened it. The next lookup opens it again."""
        if self._owns:
            self._store.close()

    def __repr__(self) -> str:
        return f"<StoreSource {self._store.namespace}, collection {self._id}>"
