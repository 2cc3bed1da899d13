"""The local store: collections of profiles on disk, built from the user's files, looked up in microseconds.

```python
build_store("profiles.store", [CollectionSpec("Users", Path("users.csv"), key="id", filterable=["email"])])
with ProfileStore("profiles.store") as store:
    store.get("Users", "478060")
```
"""

from __future__ import annotations

from .build import build_store, drop_collections
from .inputs import SqlQuery, Stream
from .model import BuildReport, Collection, CollectionReport, CollectionSpec, Column, Progress, StoredRecord, StorePage
from .store import ProfileStore

__all__ = [
    "BuildReport",
    "Collection",
    "CollectionReport",
    "CollectionSpec",
    "Column",
    "ProfileStore",
    "Progress",
    "SqlQuery",
    "StorePage",
    "StoredRecord",
    "Stream",
    "build_store",
    "drop_collections",
]
