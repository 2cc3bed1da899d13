"""Stores: collections of profiles on disk, built from files or queries and read in process.

```python
build_store("profiles.store", [CollectionSpec("Users", Path("users.csv"), key="id", filterable=["email"])])
with LocalStore("profiles.store") as store:
    store.get("Users", "478060")
```
"""

from __future__ import annotations

from .build_reports import BuildProgress, BuildReport, CollectionReport, RefreshedCollection, RefreshReport
from .collection import Collection, CollectionChanges, Column, StoredRecord, StorePage
from .collection_specs import CollectionSpec, RefreshSpec
from .input_types import SqlQuery, Stream
from .local_store import LocalStore
from .profile_store import ProfileStore
from .writes.build import build_store, drop_collections
from .writes.refresh import refresh_store
from .writes.single_records import delete_record, put_record

__all__ = [
    "BuildProgress",
    "BuildReport",
    "Collection",
    "CollectionChanges",
    "CollectionReport",
    "CollectionSpec",
    "Column",
    "LocalStore",
    "ProfileStore",
    "RefreshReport",
    "RefreshSpec",
    "RefreshedCollection",
    "SqlQuery",
    "StorePage",
    "StoredRecord",
    "Stream",
    "build_store",
    "delete_record",
    "drop_collections",
    "put_record",
    "refresh_store",
]
