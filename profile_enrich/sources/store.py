"""The local store as a source: no HTTP, no other process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from .._utils.deadline import Deadline
from .._utils.validation import check_text
from ..errors import AmbiguousMatch, ConfigurationError, InvalidKeyError, SourceUnavailable, StoreError
from ..profile import ProfileKey, Record
from ..store import Collection, LocalStore, ProfileStore, StoredRecord
from .base import Found, NotFound, SourceResult, Validators

__all__ = ["StoreSource"]


class StoreSource:
    """Looks profiles up in one collection of a store, by its key or by any filterable attribute.

    `ProfileKey("478060")` asks for the record with that key; `ProfileKey("a@b.example", type="email")` for the records
    whose `email` is exactly that. A look-up of a local store takes microseconds and is made in the event loop; one in
    PostgreSQL is made in a thread. A newer generation of the store is noticed by itself.

    Args:
        store: the store, or its path (then it is closed with the source).
        collection: the collection's name, index id (`"idx-…"`) or entity id.
        on_multiple: what an attribute that matches more than one record gives: `"error"` (`AmbiguousMatch`) or
            `"first"`.

    Raises:
        StoreError: there is no such store or collection.
        ConfigurationError: an argument makes no sense.
    """

    def __init__(
        self,
        store: ProfileStore | Path | str,
        *,
        collection: str | int,
        on_multiple: Literal["error", "first"] = "error",
    ) -> None:
        if isinstance(collection, bool) or not isinstance(collection, int | str) or collection == "":
            raise ConfigurationError("collection must be the collection's name or id")
        if isinstance(store, str):
            check_text("store", store)
        if on_multiple not in ("error", "first"):
            raise ConfigurationError(f"on_multiple is 'error' or 'first', not {on_multiple!r}")
        self._owns = isinstance(store, Path | str)
        self._store = LocalStore(store) if isinstance(store, Path | str) else store
        # By its number: the collection stays the same one when the store is built anew.
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
        """The collection as it is now.

        Raises:
            StoreError: it was dropped.
        """
        return self._store.collection(self._id)

    async def fetch(self, key: ProfileKey, *, deadline: Deadline, validators: Validators | None = None) -> SourceResult:
        """Look one profile up; see `ProfileSource.fetch`.

        A local store answers in microseconds; one behind a network is asked in a thread, within its own time limit.
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
        """See `LocalSource`. A store behind a network is asked key by key."""
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
                f"the collection {collection.name!r} cannot be looked up by this type; it has: {allowed}"
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
