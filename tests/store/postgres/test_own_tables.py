"""The user's own tables and views, served read-only."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from profile_enrich.errors import ConfigurationError, CursorError, StoreError
from profile_enrich.server import ProfileAPI
from profile_enrich.store.postgres import PostgresTables, TableSpec
from tests.services.postgres import PgBouncer, Postgres
from tests.store.backends import make_table

TYPES = {
    "id": "text",
    "tier": "text",
    "n": "integer",
    "big": "bigint",
    "ratio": "double precision",
    "price": "numeric(12,2)",
    "even": "boolean",
    "born": "date",
    "at": "timestamp",
    "u": "uuid",
    "doc": "jsonb",
    "raw": "json",
    "tags": "text[]",
    "net": "inet",
}
UUID = "12345678-1234-1234-1234-1234567890ab"
ROWS: list[dict[str, Any]] = [
    {
        "id": f"u{n:03}",
        "tier": ["gold", "silver", None][n % 3],
        "n": n,
        "big": 2**60 + n,
        "ratio": n / 4,
        "price": f"{n}.50",
        "even": n % 2 == 0,
        "born": f"2000-01-{n % 28 + 1:02}",
        "at": "2018-01-14 15:53:16",
        "u": UUID,
        "doc": json.dumps({"a": [n, "ö"], "big": 12345678901234567890}),
        "raw": '{"b" :  1.50}',
        "tags": ["x", "y"],
        "net": "10.0.0.1",
    }
    for n in range(60)
]
FILTERS = ("tier", "n", "even", "born", "u")


@pytest.fixture(scope="module")
def table(postgres: Postgres) -> str:
    return make_table(postgres, ROWS, TYPES, filterable=FILTERS)


@pytest.fixture(params=["postgres", "pgbouncer"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param).dsn())


@pytest.fixture
def store(url: str, table: str) -> Generator[PostgresTables]:
    with PostgresTables(url, [TableSpec("Users", table, filterable=FILTERS)], secret=b"s" * 16) as opened:
        yield opened


def test_D6_records_have_their_own_types_and_lose_no_digit(store: PostgresTables) -> None:
    payload = store.get_payload("Users", "u007")
    assert payload is not None
    assert payload.decode() == (
        '{"data":{"id":"u007","tier":"silver","n":7,"big":1152921504606846983,"ratio":1.75,"price":7.50,"even":false,'
        '"born":"2000-01-08","at":"2018-01-14 15:53:16","u":"12345678-1234-1234-1234-1234567890ab",'
        '"doc":{"a": [7, "ö"], "big": 12345678901234567890},"raw":{"b": 1.50},"tags":"{x,y}","net":"10.0.0.1/32"}}'
    )
    profile = json.loads(store.get_payload("Users", "u007", "amperity") or b"")
    assert profile["attributes"]["price"] == "7.50"
    assert profile["attributes"]["doc"] == '{"a": [7, "ö"], "big": 12345678901234567890}'
    assert all(isinstance(value, str) for value in profile["attributes"].values())
    record = store.get(store.collection("Users"), "u000")
    assert record is not None
    assert record.attributes["tier"] == "gold"
    for other in ("U007", "u007 ", "", "u007\0", "\ud800", "'", "u%"):
        assert store.get("Users", other) is None


def test_D6_filters_pages_and_totals(store: PostgresTables) -> None:
    for filters, expected in (
        ({"tier": "gold"}, [r["id"] for r in ROWS if r["tier"] == "gold"]),
        ({"even": "true", "tier": "gold"}, [r["id"] for r in ROWS if r["tier"] == "gold" and r["even"]]),
        ({"n": "7"}, ["u007"]),
        ({"n": "07"}, []),
        ({"n": "seven"}, []),
        ({"n": "9" * 30}, []),
        ({"even": "True"}, []),
        ({"born": "2000-01-08"}, [r["id"] for r in ROWS if r["born"] == "2000-01-08"]),
        ({"born": "2000-1-8"}, []),
        ({"u": UUID}, [r["id"] for r in ROWS]),
        ({"u": UUID.upper()}, []),
        ({}, [r["id"] for r in ROWS]),
    ):
        found, cursor = [], None
        while True:
            page = store.page("Users", filters, limit=7, cursor=cursor, with_total=True)
            assert page.total == len(expected)
            found += [json.loads(payload)["id"] for payload in page.payloads]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == expected
        assert [r.id for r in store.search("Users", filters)] == expected[:2]
    token = store.page("Users", {"tier": "gold"}, limit=2).next_cursor
    assert token is not None
    for changed in (token[:-2] + "AA", "x", "é", token + "="):
        with pytest.raises(CursorError):
            store.page("Users", {"tier": "gold"}, cursor=changed)
    with pytest.raises(CursorError):
        store.page("Users", {}, cursor=token)
    with pytest.raises(ConfigurationError, match="not filterable"):
        store.page("Users", {"price": "7.50"})


def test_D6_nothing_is_written_and_the_role_needs_select_only(postgres: Postgres, table: str) -> None:
    reader = f"reader_{table}"
    postgres.execute(f"CREATE ROLE {reader} LOGIN", f"GRANT SELECT ON {table} TO {reader}")
    before = postgres.execute("SELECT count(*) FROM pg_class")
    with PostgresTables(postgres.dsn(user=reader), [TableSpec("Users", table)]) as store:
        assert store.get("Users", "u001") is not None
        with pytest.raises(StoreError, match="only read"):
            store.put_record("Users", "u001", {})
        with pytest.raises(StoreError, match="only read"):
            store.delete_record("Users", "u001")
        assert store.changes_since("Users", 1) is None
        with pytest.raises(StoreError, match=r"role may not|read-only"):
            store._database.primary.run(lambda c: c.execute(f"DELETE FROM {table}".encode()), again=False)
    assert postgres.execute("SELECT count(*) FROM pg_class") == before
    writer = f"writer_{table}"
    postgres.execute(f"CREATE ROLE {writer} LOGIN", f"GRANT ALL ON {table} TO {writer}")
    with (
        PostgresTables(postgres.dsn(user=writer), [TableSpec("Users", table)]) as store,
        pytest.raises(StoreError, match="read-only"),
    ):
        store._database.primary.run(lambda c: c.execute(f"DELETE FROM {table}".encode()), again=False)


@pytest.mark.parametrize("statement", ["", "CREATE VIEW {v} AS SELECT id, tier FROM {t}"])
def test_D6_a_missing_index_is_named_with_the_statement_that_creates_it(postgres: Postgres, statement: str) -> None:
    table = make_table(postgres, ROWS, TYPES, filterable=())
    served = table
    if statement:
        served = f"v_{table}"
        postgres.execute(statement.format(v=served, t=table))
    spec = [TableSpec("Users", served, filterable=["tier"])]
    with pytest.raises(StoreError) as caught:
        PostgresTables(postgres.dsn(), spec)
    message = str(caught.value)
    assert "'tier' (filterable) would read all of \"public\"" in message
    start = message.index("CREATE INDEX")
    postgres.execute(message[start : message.index(";", start)])  # the statement works unchanged
    with PostgresTables(postgres.dsn(), spec) as store:
        assert len(store.page("Users", {"tier": "gold"}).payloads) == 20
    postgres.execute(f"DROP INDEX {table}_id_idx")
    with pytest.raises(StoreError, match=r"'id' \(key\) .* CREATE UNIQUE INDEX CONCURRENTLY"):
        PostgresTables(postgres.dsn(), spec)
    PostgresTables(postgres.dsn(), spec, check_plans=False).close()


def test_D6_row_level_security_holds(postgres: Postgres) -> None:
    table = make_table(postgres, ROWS, TYPES, filterable=["tier"])
    role = f"team_{table}"
    postgres.execute(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT ON {table} TO {role}",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY p ON {table} USING (tier = 'gold')",
    )
    with PostgresTables(postgres.dsn(user=role), [TableSpec("Users", table, filterable=["tier"])]) as store:
        assert store.get("Users", "u000") is not None
        assert store.get("Users", "u001") is None  # silver
        assert store.page("Users", {"tier": "silver"}, with_total=True).total == 0
        assert store.page("Users", {}, with_total=True).total == 20


def test_D6_columns_that_the_role_may_not_read_are_not_there(postgres: Postgres) -> None:
    table = make_table(postgres, ROWS, TYPES, filterable=())
    role = f"some_{table}"
    postgres.execute(f"CREATE ROLE {role} LOGIN", f"GRANT SELECT (id, tier) ON {table} TO {role}")
    with PostgresTables(postgres.dsn(user=role), [TableSpec("Users", table)]) as store:
        assert [column.name for column in store.collection("Users").columns] == ["id", "tier"]
        assert store.get_payload("Users", "u001") == b'{"data":{"id":"u001","tier":"silver"}}'


@pytest.mark.parametrize(("kind", "key"), [("integer", "7"), ("bigint", "-7"), ("uuid", UUID)])
def test_D6_keys_of_other_types(postgres: Postgres, kind: str, key: str) -> None:
    table = make_table(postgres, [{"id": key, "x": "found"}], {"id": kind, "x": "text"}, filterable=())
    with PostgresTables(postgres.dsn(), [TableSpec("Users", table)]) as store:
        record = store.get("Users", key)
        assert record is not None
        assert record.attributes["x"] == "found"
        for other in ("007", "+7", "7 ", "7.0", UUID.upper(), "{" + UUID + "}", "x", str(2**70)):
            assert store.get("Users", other) is None
        assert len(store.page("Users").payloads) == 1


def test_D6_what_cannot_be_served_exactly_is_refused(postgres: Postgres) -> None:
    table = make_table(postgres, ROWS, TYPES, filterable=())
    postgres.execute(
        f"CREATE COLLATION c_{table} (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        f'CREATE TABLE ci_{table} (id text COLLATE "c_{table}" PRIMARY KEY)',
        f"CREATE TABLE twice_{table} (id text, x text)",
        f"CREATE INDEX ON twice_{table} (id)",
        f"INSERT INTO twice_{table} VALUES ('a', 'one'), ('a', 'two')",
    )
    for spec, message in (
        (TableSpec("Users", table, key="price"), r"type numeric; key columns are of the types text"),
        (TableSpec("Users", table, filterable=["ratio"]), r"type double precision; filterable columns"),
        (TableSpec("Users", table, key="nope"), r"no column 'nope' \(key\)"),
        (TableSpec("Users", f"ci_{table}"), "collation"),
        (TableSpec("Users", "a.b.c"), r"schema\.table"),
        (TableSpec("Users", table, filterable="tier"), "not one string"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            PostgresTables(postgres.dsn(), [spec])
    with pytest.raises(StoreError, match="no table or view"):
        PostgresTables(postgres.dsn(), [TableSpec("Users", "nowhere")])
    with (
        PostgresTables(postgres.dsn(), [TableSpec("Users", f"twice_{table}")]) as store,
        pytest.raises(StoreError, match="several rows"),
    ):
        store.get("Users", "a")
    with pytest.raises(ConfigurationError, match="16 bytes"):
        PostgresTables(postgres.dsn(), [TableSpec("Users", table)], secret=b"short")


def test_D6_values_that_python_has_no_form_for(postgres: Postgres) -> None:
    name = make_table(
        postgres, [{"id": "a"}], {"id": "text", "at": "timestamptz", "d": "date", "f": "real"}, filterable=()
    )
    postgres.execute(f"UPDATE {name} SET at = 'infinity', d = '0044-03-15 BC', f = 'NaN'")
    with PostgresTables(postgres.dsn(), [TableSpec("Users", name)]) as store:
        record = store.get("Users", "a")
        assert record is not None
        assert record.attributes == {"id": "a", "at": "infinity", "d": "0044-03-15 BC", "f": None}


async def test_D6_the_server_over_own_tables(store: PostgresTables) -> None:
    api = ProfileAPI(store, no_auth=True)
    head = {"amperity-tenant": "any", "api-version": "2025-07-31"}
    index = store.collection("Users").index_id
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://t", headers=head) as client:
        assert (await client.get("/api/v1/entities/1/record?record_id=u003")).json()["data"]["n"] == 3
        assert (await client.get("/api/v1/entities/1/record?record_id=nobody")).status_code == 404
        page = (await client.get(f"/api/indexes/{index}/profiles?filter[tier]=gold&with_total=true&limit=3")).json()
        assert (len(page["data"]), page["total"]) == (3, 20)
        more = await client.get(
            f"/api/indexes/{index}/profiles", params={"filter[tier]": "gold", "next_token": page["next_token"]}
        )
        assert len(more.json()["data"]) == 17
        assert (await client.get("/status")).status_code == 200
    api.close()


def test_a_table_that_goes_away_is_said(postgres: Postgres) -> None:
    table = make_table(postgres, ROWS, TYPES, filterable=())
    with PostgresTables(postgres.dsn(), [TableSpec("Users", table)]) as store:
        assert store.get("Users", "u001") is not None
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME COLUMN tier TO other".encode())
            with pytest.raises(StoreError, match="no longer exists"):
                store.get("Users", "u001")
            connection.execute(f"DROP TABLE {table}".encode())
        with pytest.raises(StoreError, match="no longer exists"):
            store.get("Users", "u001")


def test_page_tokens_work_on_another_server_with_the_same_secret(
    postgres: Postgres, pgbouncer: PgBouncer, table: str
) -> None:
    specs = [TableSpec("Users", table)]
    with (
        PostgresTables(postgres.dsn(), specs, secret=b"s" * 32) as one,
        PostgresTables(pgbouncer.dsn(), specs, secret=b"s" * 32) as other,
        PostgresTables(postgres.dsn(), specs) as third,
    ):
        token = one.page("Users", limit=5).next_cursor
        assert len(other.page("Users", limit=1000, cursor=token).payloads) == 55
        with pytest.raises(CursorError):
            third.page("Users", cursor=token)


def test_D6_a_table_filled_in_parallel_is_swapped_in_under_reads(postgres: Postgres) -> None:
    """The recipe of the page on scaling: each thread stands for a writer of the cluster."""
    name = f"people_{secrets.token_hex(4)}"

    def fill(table: str, tier: str) -> None:
        def write(part: int) -> None:
            with (
                psycopg.connect(postgres.dsn(), autocommit=True) as connection,
                connection.cursor() as cursor,
                cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy,
            ):
                for number in range(part, 400, 4):
                    copy.write_row((f"u{number}", tier))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))

    postgres.execute(f"CREATE TABLE {name}_a (id text PRIMARY KEY, tier text)")
    fill(f"{name}_a", "gold")
    postgres.execute(f"CREATE VIEW {name} AS SELECT * FROM {name}_a")
    with PostgresTables(postgres.dsn(), [TableSpec("Users", name)]) as store, ThreadPoolExecutor(1) as reader:
        ended = threading.Event()

        def read() -> list[str]:
            found: list[str] = []
            while not ended.is_set():
                record = store.get("Users", "u7")
                assert record is not None
                found.append(record.attributes["tier"])
            return found

        reading = reader.submit(read)
        postgres.execute(f"CREATE TABLE {name}_b (LIKE {name}_a INCLUDING ALL)")
        fill(f"{name}_b", "silver")
        postgres.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM {name}_b")
        assert store.page("Users", limit=1, with_total=True).total == 400
        ended.set()
        tiers = reading.result(30)
        record = store.get("Users", "u7")
        assert record is not None
        assert record.attributes["tier"] == "silver"
        assert tiers == sorted(tiers)  # gold, then silver, and never gold again
