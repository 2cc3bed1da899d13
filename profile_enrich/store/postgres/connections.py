"""Connection pool for PostgreSQL: bounded, connects in the calling thread, with a deadline on each response.

The pool has no thread, so it survives a fork, and the next call uses a server that is back.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from ..._utils.fork import reset_after_fork
from ..._utils.validation import check_int, check_number
from ...errors import ConfigurationError, StoreBusy, StoreError
from .driver import conninfo_to_dict, make_conninfo, pg, psycopg

__all__ = ["Database", "Pool", "Rows", "Unreachable", "new_connection"]

Result = TypeVar("Result")
Rows = list[tuple[Any, ...]]

_CONNECT_TIMEOUT = 3  # seconds for each host; libpq accepts whole seconds, at least two
_GRACE = 0.5  # seconds after the statement timeout, so that the server can report it first
_IDLE = 300.0  # seconds after which an unused connection is closed
_DOWN_FOR = 0.5  # seconds for which reads avoid a server that refused the connection


class Unreachable(StoreError):
    """The server is unreachable, or the connection broke."""


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that limits each wait, even if the server is frozen and its kernel still acknowledges packets."""

    answer_timeout: float | None = None
    pooled = False
    used_at = 0.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server for up to `answer_timeout` seconds."""
        try:
            return super().wait(gen, interval, self.answer_timeout if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # close it: a late response must not be taken for that of another statement
            raise


def new_connection(
    url: str, *, statement_timeout: float | None, prepare: bool | None, read_only: bool = False
) -> _Connection:
    """Connect, and detect a pooler in transaction mode.

    Args:
        url: the libpq URL of the server.
        statement_timeout: the time limit of a statement in seconds; `None` for no limit.
        prepare: whether to prepare statements; `None` prepares them unless a pooler is detected.
        read_only: whether nothing may be written.

    Raises:
        Unreachable: connecting failed. The message holds no password, user or host.
    """
    problem = ""
    try:
        connection = _Connection.connect(url, autocommit=True)
    except psycopg.Error as error:
        problem = _reason(error)
    else:
        if statement_timeout is not None:
            connection.answer_timeout = statement_timeout + _GRACE
        try:
            row = connection.execute(b"SELECT pg_backend_pid(), current_setting('server_encoding')").fetchone()
            # A pooler reports an invented process id, since its clients switch between server processes.
            connection.pooled = row is not None and row[0] != connection.info.backend_pid
            if prepare is False or (prepare is None and connection.pooled):
                connection.prepare_threshold = None
            if row is not None and row[1] != "UTF8":
                problem = f"its encoding is {row[1]}; profiles need a database in UTF8"
            if not problem and statement_timeout is not None and not connection.pooled:
                connection.execute(f"SET statement_timeout = {round(statement_timeout * 1000)}".encode())
                if read_only:
                    connection.execute(b"SET default_transaction_read_only = on")
            connection.read_only = True if read_only else None
        except psycopg.Error as error:
            problem = _reason(error)
        if not problem:
            return connection
        connection.close()
    raise Unreachable(f"the database cannot be used: {problem}")


def _reason(error: psycopg.Error) -> str:
    """Return the reason without the server's text, which may quote values, and libpq's, which names host and user."""
    text = str(error).lower()
    for sign, reason in (
        ("password", "it refuses the password"),
        ("certificate", "its certificate is not trusted for this host (sslmode=verify-full with sslrootcert=…)"),
        ("does not support ssl", "it does not speak TLS, which sslmode asks for"),
        ("no pg_hba.conf entry", "its pg_hba.conf does not let this user in"),
        ("could not translate host name", "its host name is not known"),
        ("connection refused", "nothing listens there"),
        ("read-only", "none of the hosts is a primary"),
        ("timeout", "it does not answer in time"),
        ("too many", "it has no connection left"),
        ("does not exist", "there is no such database or role"),
    ):
        if sign in text:
            return reason
    return f"{type(error).__name__}{f' ({error.sqlstate})' if error.sqlstate else ''}"


class Pool:
    """A bounded LIFO pool of connections to one server.

    Args:
        url: the URL of the server.
        size: the largest number of connections.
        wait: how long a caller waits for a free connection, in seconds.
        statement_timeout: the time limit of a statement, in seconds.
        prepare: see `new_connection`.
        read_only: see `new_connection`.
        timer: the monotonic clock.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int,
        wait: float,
        statement_timeout: float,
        prepare: bool | None,
        read_only: bool = False,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._size = size
        self._wait = wait
        self._timeout = statement_timeout
        self._prepare = prepare
        self._read_only = read_only
        self._timer = timer
        self.down_until = 0.0
        self._start()
        reset_after_fork(self)

    def _start(self) -> None:
        self._free: deque[_Connection] = deque()
        self._closings = 0
        self._turns = threading.BoundedSemaphore(self._size)
        self._inherited: object = None

    def after_fork(self) -> None:
        """Drop the parent's connections without using or closing them, which would end them in the parent."""
        inherited = self._free
        self._start()
        self._inherited = inherited

    @contextlib.contextmanager
    def connection(self) -> Generator[_Connection]:
        """Lend a connection.

        Raises:
            StoreBusy: all connections are in use for longer than `wait`.
            Unreachable: connecting failed.
        """
        if not self._turns.acquire(timeout=self._wait):
            raise StoreBusy("all connections to the database are in use")
        try:
            closings = self._closings
            lent = self._take()
            try:
                yield lent
            finally:
                late = closings != self._closings  # the pool was closed while it was in use
                if (
                    late
                    or lent.closed
                    or lent.broken
                    or lent.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
                ):
                    lent.close()
                else:
                    lent.used_at = self._timer()
                    self._free.append(lent)
        finally:
            self._turns.release()

    def _take(self) -> _Connection:
        with contextlib.suppress(IndexError):
            while self._free and self._timer() - self._free[0].used_at > _IDLE:
                self._free.popleft().close()
            return self._free.pop()
        try:
            made = new_connection(
                self._url, statement_timeout=self._timeout, prepare=self._prepare, read_only=self._read_only
            )
        except Unreachable:
            self.down_until = self._timer() + _DOWN_FOR
            raise
        self.down_until = 0.0
        return made

    def is_down(self) -> bool:
        """Whether the server has just refused a connection."""
        return self._timer() < self.down_until

    def drop_idle(self) -> None:
        """Close the idle connections: after one broke, the others are probably broken, too."""
        with contextlib.suppress(IndexError):
            while True:
                self._free.pop().close()

    def run(self, work: Callable[[_Connection], Result], *, again: bool) -> Result:
        """Run a function on a connection.

        Args:
            work: the function.
            again: whether to repeat it on a new connection if this one breaks; for reads only.

        Raises:
            StoreError: the function failed. The message holds no value.
        """
        for attempt in (0, 1):
            try:
                with self.connection() as connection:
                    return work(connection)
            except (pg.UndefinedTable, pg.UndefinedColumn):
                raise
            except (pg.SerializationFailure, pg.DeadlockDetected):
                if again and not attempt:
                    continue
                problem, broken = "another writer was in the way; try again", False
            except pg.LockNotAvailable:
                problem, broken = "", False
            except pg.QueryCanceled:
                problem, broken = "the database took too long (statement timeout)", False
            except pg.InsufficientPrivilege:
                problem, broken = "its role may not do this; see what it is granted", False
            except pg.ReadOnlySqlTransaction:
                # This was the primary; the next connection finds the new one.
                self.drop_idle()
                problem, broken = "the server is read-only; it is not the primary (any more)", True
            except psycopg.OperationalError:
                self.drop_idle()
                problem, broken = "the connection to the database broke", True
            except psycopg.Error as error:
                problem, broken = f"the database refused: {type(error).__name__} ({error.sqlstate})", False
            if not problem:
                raise StoreBusy("another process is writing; try again")
            if not (broken and again and not attempt):
                break
        raise Unreachable(problem) if broken else StoreError(problem)

    def close(self) -> None:
        """Close all connections, those in use after their release; the next call opens new ones."""
        self._closings += 1
        self.drop_idle()


class Database:
    """A primary and its read replicas.

    Args:
        url: the URL of the primary, as libpq takes it (`postgresql://user@host/database?sslmode=verify-full`). Of
            several hosts, libpq uses the one that accepts writes (`target_session_attrs=read-write`), also after a
            failover.
        replicas: URLs of read replicas, used in turn.
        pool_size: the largest number of connections per server.
        statement_timeout: the time limit of a statement, in seconds.
        wait: how long a call waits for a free connection, in seconds.
        prepare: whether to prepare statements; by default, unless a pooler is detected.
        read_only: whether nothing may be written.

    Raises:
        ConfigurationError: a URL is invalid, or a number is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        replicas: Sequence[str] = (),
        pool_size: int = 10,
        statement_timeout: float = 5.0,
        wait: float = 2.0,
        prepare: bool | None = None,
        read_only: bool = False,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(replicas, str):
            raise ConfigurationError("replicas is a sequence of URLs, not one string")
        check_int("pool_size", pool_size)
        check_number("statement_timeout", statement_timeout, positive=True)
        check_number("wait", wait)
        options: dict[str, Any] = {
            "size": pool_size,
            "wait": wait,
            "statement_timeout": statement_timeout,
            "prepare": prepare,
            "read_only": read_only,
            "timer": timer,
        }
        self.url = _conninfo("url", url, primary=True)
        self.primary = Pool(self.url, **options)
        self.replicas = [Pool(_conninfo("replicas", each, primary=False), **options) for each in replicas]
        self._turn = 0

    @property
    def name(self) -> str:
        """The name of the database for messages and namespaces: hosts and database, without user and password."""
        facts = conninfo_to_dict(self.url)
        return f"{facts.get('host') or 'local'}:{facts.get('port') or 5432}/{facts.get('dbname') or ''}"

    def next_replica(self) -> Pool | None:
        """Return the next available replica; `None` if there is none."""
        for _ in self.replicas:
            self._turn = (self._turn + 1) % len(self.replicas)
            if not (pool := self.replicas[self._turn]).is_down():
                return pool
        return None

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        for pool in (self.primary, *self.replicas):
            pool.close()


def _conninfo(argument: str, url: str, *, primary: bool) -> str:
    if not isinstance(url, str) or not url:
        raise ConfigurationError(f"{argument} must be a PostgreSQL URL, e.g. postgresql://user@host/database")
    try:
        facts: dict[str, Any] = dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        facts = {}
    if not facts:  # raised outside of the handler, because libpq's message may quote the password
        raise ConfigurationError(f"{argument} is not a PostgreSQL URL, e.g. postgresql://user@host/database")
    facts.setdefault("connect_timeout", _CONNECT_TIMEOUT)
    facts.setdefault("application_name", "profile_enrich")
    if primary and "," in str(facts.get("host", "")):
        facts.setdefault("target_session_attrs", "read-write")
    return make_conninfo("", **facts)
