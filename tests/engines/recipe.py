"""The recipe of the page on scaling: a cluster fills a table in parallel, and a swap makes it visible."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import ROOT


def check_recipe(name: str, frame: Any, part: Any) -> None:
    """Run a function of the page against a PostgreSQL of its own.

    Args:
        name: of the function.
        frame: 400 rows with `id`, `tier` and `orders`; u7 is silver and has no orders.
        part: some of its rows, which are written again, as by a task that is repeated.
    """
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'psycopg[binary]'")
    from profile_enrich.store.postgres import PostgresTables, TableSpec
    from tests.services.postgres import Postgres

    fill = _function(name)
    server = Postgres()
    try:
        server.create().start()
        server.execute("CREATE TABLE users_a (id text PRIMARY KEY, tier text, orders bigint)")
        server.execute("INSERT INTO users_a VALUES ('u7', 'gold', 3)")
        server.execute("CREATE VIEW users AS SELECT * FROM users_a")
        with PostgresTables(server.dsn(), [TableSpec("Users", "users")]) as store:
            server.execute("CREATE TABLE users_b (LIKE users_a INCLUDING ALL)")
            fill(frame, server.dsn(), "users_b")
            fill(part, server.dsn(), "users_b")
            assert server.execute("SELECT count(*), sum(orders) FROM users_b") == [(400, sum(range(400)) - 7)]
            assert _record(store) == {"id": "u7", "tier": "gold", "orders": 3}
            server.execute("CREATE OR REPLACE VIEW users AS SELECT * FROM users_b")
            assert _record(store) == {"id": "u7", "tier": "silver", "orders": None}
            assert store.page("Users", limit=1, with_total=True).total == 400
    finally:
        server.remove()


def _record(store: Any) -> dict[str, Any]:
    record = store.get("Users", "u7")
    assert record is not None
    return dict(record.attributes)


def _function(name: str) -> Callable[[Any, str, str], None]:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    first, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(first, names)
    exec(next(block for block in others if f"def {name}(" in block), names)
    found: Callable[[Any, str, str], None] = names[name]
    return found
