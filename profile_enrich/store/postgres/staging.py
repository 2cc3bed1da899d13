"""Staging of rows: copy them into a temporary table and make their keys unique."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

from ...errors import StoreBusy, StoreError
from ..build_reports import BuildProgress
from ..database_row import comparable, content_hash, storable
from ..files.row_encoder import EncodedRow
from .connections import Unreachable, new_connection
from .driver import pg, psycopg
from .schema import sql
from .single_records import attributes_of

__all__ = ["Duplicates", "ProgressReporter", "Staging", "writing"]

_PROGRESS_EVERY = 0.1
_SWAP_WAIT = 60.0  # seconds for the writers of single records to be done

Duplicates = tuple[int, int | None]


@contextlib.contextmanager
def writing(url: str, schema: str, names: Sequence[str]) -> Generator[Any]:
    """Open a transaction that excludes other builds of these collections, and commit it at the end.

    If the process ends earlier, the server rolls back.

    Raises:
        StoreBusy: another build of one of them is running.
        StoreError: the database reports an error. The message holds no value.
    """
    connection = new_connection(url, statement_timeout=None, prepare=False)
    problem, busy = "", False
    try:
        for name in names:
            connection.execute(
                sql("INSERT INTO {s}.building (name) VALUES (%s) ON CONFLICT (name) DO NOTHING", schema), (name,)
            )
        with connection.transaction():
            connection.execute(b"SET LOCAL statement_timeout = 0")
            for name in sorted(names):
                connection.execute(
                    sql("SELECT name FROM {s}.building WHERE name = %s FOR UPDATE NOWAIT", schema), (name,)
                )
            yield connection
    except pg.LockNotAvailable:
        busy, problem = True, "another build of this collection is running, or writers hold it; wait for it to end"
    except pg.InsufficientPrivilege:
        problem = "the role may not do this; grant it CREATE on the schema, or build with the role that owns it"
    except pg.DiskFull:
        problem = "the disk of the database is full"
    except psycopg.OperationalError:
        raise Unreachable("the connection to the database broke; nothing was changed") from None
    except psycopg.Error as error:
        problem = f"the database refused: {type(error).__name__} ({error.sqlstate})"
    finally:
        connection.close()
    if problem:
        raise StoreBusy(problem) if busy else StoreError(problem)


class ProgressReporter:
    """Report the progress, at most ten times per second."""

    def __init__(self, name: str, tell: Callable[[BuildProgress], None] | None, total: int | None) -> None:
        self._name = name
        self._tell = tell
        self._total = total
        self._next = 0.0

    def at(self, number: int) -> None:
        """Report the number of rows read."""
        if self._tell is not None and not number & 0xFF and time.monotonic() >= self._next:
            self._tell(BuildProgress(self._name, number, self._total))
            self._next = time.monotonic() + _PROGRESS_EVERY

    def end(self, number: int) -> None:
        """Report that all rows were read."""
        if self._tell is not None:
            self._tell(BuildProgress(self._name, number, number))


class Staging:
    """The temporary table `staged`: one row per change; the last one of a key wins.

    It receives the output of `ChangeApplier`: records, keys to delete, keys to keep unchanged.

    Args:
        connection: a connection in a transaction.
        width: the number of filterable values.
    """

    def __init__(self, connection: Any, width: int) -> None:
        self._connection = connection
        self._width = width
        self._copy: Any = None
        self._number = 0
        self.others_deleted = False

    @contextlib.contextmanager
    def open(self) -> Generator[Staging]:
        """Create the table, and start to copy rows."""
        values = "".join(f', v{at} text COLLATE "C"' for at in range(self._width))
        self._connection.execute(
            b"CREATE TEMPORARY TABLE staged (seq bigint NOT NULL, kind smallint NOT NULL,"
            b' key text COLLATE "C" NOT NULL, hash bytea, record text' + values.encode() + b") ON COMMIT DROP"
        )
        types = ["int8", "int2", "text", "bytea", "text", *["text"] * self._width]
        with self._connection.cursor() as cursor, cursor.copy(b"COPY staged FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(types)
            self._copy = copy
            yield self

    def put(self, row: EncodedRow) -> Literal["staged"]:
        """Add a record.

        Raises:
            RowRejected: PostgreSQL cannot store its key.
        """
        text = attributes_of(row)
        self._add(0, row.key, content_hash(text), text, *(comparable(value) for value in row.values))
        return "staged"

    def delete(self, key: str) -> bool:
        """Take in the key of a record to delete; false: no record can have it."""
        if not storable(key):
            return False
        self._add(1, key, None, None, *[None] * self._width)
        return True

    def keep(self, key: str) -> None:
        """Add the key of an unchanged record."""
        if storable(key):
            self._add(2, key, None, None, *[None] * self._width)

    def delete_others(self) -> None:
        """Delete the records whose keys were not added."""
        self.others_deleted = True

    def _add(self, kind: int, *values: Any) -> None:
        self._number += 1
        self._copy.write_row((self._number, kind, *values))

    def make_unique(self) -> Duplicates:
        """Keep the last row of each key, in the position of the first; return how many were dropped, and the first."""
        run = self._connection.execute
        run(b"CREATE INDEX ON staged (key)")
        run(b"ANALYZE staged")
        # A rejected row only marks its record as present.
        run(
            b"DELETE FROM staged s WHERE kind = 2 AND EXISTS"
            b" (SELECT 1 FROM staged o WHERE o.key = s.key AND (o.kind <> 2 OR o.seq < s.seq))"
        )
        run(
            b"CREATE TEMPORARY TABLE repeated ON COMMIT DROP AS SELECT key, min(seq) AS first, max(seq) AS last,"
            b" count(*) AS times FROM staged GROUP BY key HAVING count(*) > 1"
        )
        row = run(
            b"SELECT (SELECT coalesce(sum(times - 1), 0)::bigint FROM repeated),"
            b" (SELECT min(s.seq) FROM staged s JOIN repeated r ON r.key = s.key WHERE s.seq > r.first)"
        ).fetchone()
        if row[0]:
            run(b"DELETE FROM staged s USING repeated r WHERE s.key = r.key AND s.seq < r.last")
            run(b"UPDATE staged s SET seq = r.first FROM repeated r WHERE s.key = r.key")
        run(b"DROP TABLE repeated")
        return int(row[0]), row[1]

    def drop(self) -> None:
        """Drop the table, for the next collection."""
        self._connection.execute(b"DROP TABLE staged")
