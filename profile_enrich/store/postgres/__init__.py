"""PostgreSQL stores (extra `postgres`): in their own tables, or over the user's tables and views.

```python
build_database(url, [CollectionSpec("Users", Path("users.csv"), key="id", filterable=["email"])])
with PostgresStore(url) as store:
    store.get("Users", "478060")
```
"""

from __future__ import annotations

from .build import build_database, drop_database_collections
from .existing_table_specs import TableSpec
from .existing_tables_store import PostgresTables
from .postgres_store import PostgresStore
from .refresh import refresh_database

__all__ = [
    "PostgresStore",
    "PostgresTables",
    "TableSpec",
    "build_database",
    "drop_database_collections",
    "refresh_database",
]
