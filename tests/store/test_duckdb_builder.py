"""Builds by DuckDB give the same data file as builds row by row, to the last posting."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.errors import StoreError
from profile_enrich.store import BuildReport, CollectionSpec, LocalStore, build_store
from profile_enrich.store.files.collection_writer import CollectionWriter
from profile_enrich.store.index import duckdb_builder as bulk_postings
from profile_enrich.store.index.duckdb_builder import DuckDBPostings
from profile_enrich.store.inputs.csv import CsvReader
from profile_enrich.store.inputs.select_duckdb_reader import open_table
from profile_enrich.store.writes.duckdb_rows import BulkRows

from .test_duckdb_rows import NASTY

SIZE = 66_600  # with small segments, more than 16 of them
FILTERS = ("text", "tier", "city", "block", "mail", "flag", "none", "id")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many rows were read in bulk."""
    taken: list[int] = []
    add_plain = CollectionWriter.add_plain

    def counted(self: CollectionWriter, rows: Any) -> None:
        taken.append(len(rows))
        add_plain(self, rows)

    monkeypatch.setattr(CollectionWriter, "add_plain", counted)
    return taken


def both(file: Path, tmp_path: Path, **options: Any) -> tuple[BuildReport, BuildReport]:
    """Build in bulk and row by row: with a file for rejects, rows are read one by one."""
    options = {"filterable": FILTERS, **options}
    at_once = build_store(tmp_path / "at-once", [CollectionSpec("Users", file, **options)])
    options["rejects"] = tmp_path / "rejects.jsonl"
    return at_once, build_store(tmp_path / "rows", [CollectionSpec("Users", file, **options)])


def contents(path: Path) -> dict[str, list[Any]]:
    """Return the content of the first generation's data file."""
    with closing(sqlite3.connect(path / "1-000001.db")) as file:
        return {
            table: file.execute(query).fetchall()
            for table, query in (
                ("record", "SELECT * FROM record ORDER BY docid"),
                ("value", "SELECT * FROM value ORDER BY column_id, value"),
                ("unique_value", "SELECT * FROM unique_value ORDER BY column_id, value, docid"),
                ("posting", "SELECT * FROM posting ORDER BY posting_id"),
                ("schema", "SELECT type, name, sql FROM sqlite_schema ORDER BY name"),
            )
        }


def write(file: Path, names: str, rows: Iterator[tuple[object, ...]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(names.split(","))
        writer.writerows(rows)
    return file


def people(size: int) -> Iterator[tuple[object, ...]]:
    for n in range(size):
        mail = "shared@x.example" if n % 100 == 3 else f"p{(n * 7919) % size}@x.example"
        block = "first" if n < 40_000 else "early" if n < 40_515 else f"late {n // 100}"
        yield (
            f"k{n}", NASTY[n % len(NASTY)], ["gold", "silver", "é"][n % 3], f"city {n % 97 * (n % 5)}", block,
            mail if n % 11 else None, ["true", "FALSE", None][n % 3], None, n, f"{n}.50",
        )  # fmt: skip


@pytest.mark.long
@pytest.mark.usefixtures("small_segments")
def test_the_data_file_is_that_of_the_other_way(tmp_path: Path, plain: list[int]) -> None:
    """Dense and sparse values, some in one chunk only, nulls, near-unique columns with a common value."""
    names = "id,text,tier,city,block,mail,flag,none,n,price"
    file = write(tmp_path / "people.csv", names, people(SIZE))
    at_once, rows = both(file, tmp_path)
    assert sum(plain) == SIZE
    found, expected = contents(tmp_path / "at-once"), contents(tmp_path / "rows")
    assert list(found) == list(expected)
    for table, lines in expected.items():
        assert found[table] == lines, table
        assert lines, table
    one, other = at_once.collections[0], rows.collections[0]
    assert (one.read, one.stored, one.duplicates) == (other.read, other.stored, other.duplicates) == (SIZE, SIZE, 0)
    assert one.collection.columns == other.collection.columns
    assert sorted(file.name for file in (tmp_path / "at-once").iterdir()) == sorted(
        file.name for file in (tmp_path / "rows").iterdir()
    )


def test_duplicate_keys_are_found_as_in_the_other_way(tmp_path: Path, plain: list[int]) -> None:
    file = write(tmp_path / "u.csv", "id,tier", iter([("a", 1), ("b", 2), ("a", 3), ("c", 1), ("a", 1)]))
    at_once, rows = both(file, tmp_path, filterable=["tier"])
    assert plain == [5]
    assert contents(tmp_path / "at-once") == contents(tmp_path / "rows")
    one, other = at_once.collections[0], rows.collections[0]
    assert (one.stored, one.duplicates, one.first_duplicate) == (other.stored, other.duplicates, other.first_duplicate)
    with pytest.raises(StoreError, match="2 rows have a key that an earlier row has; the first is row 3"):
        build_store(tmp_path / "s", [CollectionSpec("Users", file)], on_duplicate="fail")
    with LocalStore(tmp_path / "at-once") as store:
        assert store.page("Users", {"tier": "1"}, with_total=True).total == 2


def test_without_filters_only_the_records_are_taken(tmp_path: Path, plain: list[int]) -> None:
    file = write(tmp_path / "u.csv", "id,tier", iter([("a", 1), ("b", 2)]))
    both(file, tmp_path, filterable=[])
    assert plain == [2]
    assert contents(tmp_path / "at-once") == contents(tmp_path / "rows")


def test_odd_keys_and_large_rows_are_looked_at_one_by_one(tmp_path: Path, plain: list[int]) -> None:
    for number, odd in enumerate([("", 1), ("k" * 2049, 1), ("k", "x" * 180_000)]):
        file = write(tmp_path / f"{number}.csv", "id,text", iter([("a", 1), odd]))
        build_store(tmp_path / f"s{number}", [CollectionSpec("Users", file)])
    assert not plain


def test_a_second_build_keeps_the_numbers_of_its_records(tmp_path: Path, plain: list[int]) -> None:
    file = write(tmp_path / "u.csv", "id,tier", iter([("a", 1), ("b", 2)]))
    for _ in range(2):
        build_store(tmp_path / "s", [CollectionSpec("Users", file, filterable=["tier"])])
    assert plain == [2]


@pytest.mark.long
def test_parquet_goes_the_same_way(tmp_path: Path, plain: list[int]) -> None:
    import duckdb

    file = tmp_path / "u.parquet"
    made = """
        COPY (
            SELECT i AS "i""d", 'a"b\\' || chr(10) || (i % 3) AS text, i % 2 = 0 AS flag,
                (i * 1.25)::DECIMAL(9, 3) AS price, if(i % 5 = 0, NULL, i * 1000000007) AS big,
                DATE '2020-01-01' + i::INT AS day, TIMESTAMPTZ '2020-01-01 00:00:00+02' AS moment,
                encode('x' || i) AS raw, if(i % 7 = 0, NULL, 'é') AS some
            FROM range(9000) t(i)
        ) TO $path
    """
    with duckdb.connect() as connection:
        connection.execute(made.replace("$path", f"'{file}'"))
    columns = ["text", "flag", "price", "big", "day", "raw", "some", 'i"d']
    at_once, rows = both(file, tmp_path, key='i"d', filterable=columns)
    assert sum(plain) == 9000
    assert contents(tmp_path / "at-once") == contents(tmp_path / "rows")
    assert at_once.collections[0].collection.columns == rows.collections[0].collection.columns


def test_parquet_with_floating_point_numbers_is_written_by_python(tmp_path: Path, plain: list[int]) -> None:
    import duckdb

    file = tmp_path / "u.parquet"
    duckdb.sql(f"COPY (SELECT i AS id, 0.1::DOUBLE AS x FROM range(3) t(i)) TO '{file}'")
    build_store(tmp_path / "s", [CollectionSpec("Users", file)])
    assert not plain
    with LocalStore(tmp_path / "s") as store:
        assert store.get_payload("Users", "1") == b'{"data":{"id":1,"x":0.1}}'


@pytest.mark.parametrize(("where", "name"), [(BulkRows, "plain"), (DuckDBPostings, "prepare")])
def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: type, name: str
) -> None:
    """Rows and posting lists are read at the same time, each by itself."""
    file = write(tmp_path / "u.csv", "id,tier", iter([("a", 1), ("b", 2)]))
    taken = getattr(where, name)

    def growing(self: Any, *arguments: Any) -> Any:
        with file.open("a", newline="") as more:
            more.write("c,3\r\n")
        return taken(self, *arguments)

    monkeypatch.setattr(where, name, growing)
    with pytest.raises(StoreError, match=r"u\.csv changed while it was read"):
        build_store(tmp_path / "s", [CollectionSpec("Users", file, filterable=["tier"])])
    assert not list((tmp_path / "s").glob("*.db"))


def test_what_duckdb_cannot_do_is_said_without_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "u.csv", "id,tier", iter([("a", "planted")]))
    monkeypatch.setattr(bulk_postings, "_GROUP", "SELECT error(f0) FROM kept")
    with pytest.raises(StoreError, match="its values cannot be sorted") as caught:
        build_store(tmp_path / "s", [CollectionSpec("Users", file, filterable=["tier"])])
    assert "planted" not in str(caught.value)
    assert caught.value.__context__ is None


def test_what_a_killed_build_has_put_aside_is_removed(tmp_path: Path) -> None:
    file = write(tmp_path / "u.csv", "id,tier", iter([("a", 1)]))
    left = tmp_path / "s" / "1-000001-spill.db"
    left.mkdir(parents=True)
    (left / "duckdb_temp_storage-0.tmp").write_bytes(b"x")
    build_store(tmp_path / "s", [CollectionSpec("Users", file, filterable=["tier"])])
    assert not left.exists()


@pytest.mark.parametrize(
    ("late", "kind"), [("x", "text"), ("1.5", "number"), ("7", "integer"), ("true", "text"), ("", "integer")]
)
def test_all_rows_say_what_a_column_is_not_the_first_ones(tmp_path: Path, late: str, kind: str) -> None:
    rows = [(f"k{n}", n, None) for n in range(5000)]
    file = write(tmp_path / "u.csv", "id,n,empty", iter([*rows, ("last", late, "true")]))
    build_store(tmp_path / "s", [CollectionSpec("Users", file)])
    with LocalStore(tmp_path / "s") as store:
        kinds = {column.name: column.type for column in store.collection("Users").columns}
    assert kinds == {"id": "text", "n": kind, "empty": "boolean"}


def test_a_parquet_file_with_a_broken_page_is_refused(tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "u.parquet"
    duckdb.sql(f"COPY (SELECT 'k' || hash(i) AS id FROM range(3000) t(i)) TO '{file}' (COMPRESSION zstd)")
    content = bytearray(file.read_bytes())
    content[200:2000] = bytes(1800)
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"u\.parquet cannot be read as Parquet") as caught:
        build_store(tmp_path / "s", [CollectionSpec("Users", file)])
    assert caught.value.__context__ is None


def test_duckdb_draws_no_progress_bar_of_its_own(tmp_path: Path) -> None:
    """DuckDB would print one to the caller's output if a statement takes over two seconds."""
    reader = open_table(CollectionSpec("Users", ""), write(tmp_path / "u.csv", "id", iter([("a",)])), "csv", "u.csv")
    assert isinstance(reader, CsvReader)
    assert list(reader.ask("SELECT current_setting('enable_progress_bar')")) == [[(False,)]]
    reader.close()
