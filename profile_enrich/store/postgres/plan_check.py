"""Check that lookups and filters use an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import StoreError
from .driver import ClientCursor, Identifier
from .table_columns import TableColumn

__all__ = ["check_plan"]


def check_plan(connection: Any, source: str, column: TableColumn, example: str, role: str) -> None:
    """Check the database's plan of a lookup by this column.

    Args:
        connection: to the database.
        source: the table or view, quoted for SQL.
        column: the column of the lookup.
        example: a text that is valid for the column's type.
        role: `key` or `filterable`, for the message.

    Raises:
        StoreError: the plan reads the whole table; the message has the statement that creates the missing index.
    """
    with connection.transaction(force_rollback=True):
        # The planner scans a small table even if there is an index, so disable scans to see the alternative.
        connection.execute(b"SET LOCAL enable_seqscan = off")
        cursor = ClientCursor(connection)
        statement = f"EXPLAIN (FORMAT JSON, VERBOSE) SELECT {column.quoted} FROM {source} WHERE {column.condition}"
        row: Any = cursor.execute(statement.encode(), (example,)).fetchone()
    for node in _nodes(row[0][0]["Plan"]):
        scanned = node.get("Node Type", "")
        whole = scanned == "Seq Scan" or (scanned in ("Index Scan", "Index Only Scan") and "Index Cond" not in node)
        if whole and "Relation Name" in node:
            where = Identifier(node["Schema"], node["Relation Name"]).as_string(None)
            unique = "UNIQUE " if role == "key" else ""
            raise StoreError(
                f"each lookup by {column.name!r} ({role}) would read all of {where}; create the index:"
                f" CREATE {unique}INDEX CONCURRENTLY ON {where} ({column.quoted});"
                + ("" if where == source else " (in a view: on the expression that the column is made of)")
            )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
