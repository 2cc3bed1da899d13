"""A PostgreSQL server for tests: `initdb` into a directory, a free port of 127.0.0.1, a standby, a promotion."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from tests.services.requirements import need, program

SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
wal_level = replica
max_wal_senders = 5
hot_standby = on
max_connections = 60
shared_buffers = 64MB
logging_collector = off
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _user() -> str | None:
    """Neither PostgreSQL nor pgbouncer runs as root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return None


def private_directory() -> Path:
    """A directory that the services' user owns, outside pytest's directories, whose modes may forbid access."""
    path = Path(tempfile.mkdtemp(prefix="pe-service-"))
    if (user := _user()) is not None:
        shutil.chown(path, user)
    return path


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            user=_user(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, user=_user(), cwd="/", check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


class Postgres:
    """One server."""

    def __init__(self, *, settings: str = "", hba: str = "") -> None:
        need(program("initdb") is not None, "PostgreSQL", "apt-get install postgresql")
        self.root = private_directory()
        self.data = self.root / "data"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = settings
        self._hba = hba

    def create(self) -> Postgres:
        options = ["-U", "owner", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
        run([str(program("initdb")), "-D", str(self.data), *options])
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(SETTINGS + self._settings + f"port = {self.port}\n")
        hba = self._hba or "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
        (self.data / "pg_hba.conf").write_text(hba)
        return self

    def start(self) -> Postgres:
        self.process = start([str(program("postgres")), "-D", str(self.data)], self.root / "log")
        self.wait()
        return self

    def wait(self, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                psycopg.connect(self.dsn(sslmode="prefer"), connect_timeout=2).close()
            except psycopg.OperationalError as error:
                if "no pg_hba.conf entry" in str(error) or "password" in str(error):
                    return
                time.sleep(0.05)
            else:
                return
        raise AssertionError((self.root / "log").read_text()[-2000:])

    def dsn(self, *, user: str = "owner", database: str = "postgres", **more: str) -> str:
        extra = "&".join(f"{name}={value}" for name, value in more.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}" + (f"?{extra}" if extra else "")

    def execute(self, *statements: str, user: str = "owner", database: str = "postgres") -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        with psycopg.connect(self.dsn(user=user, database=database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def standby(self) -> Postgres:
        """Start a streaming replica of this server."""
        other = Postgres()
        command = [str(program("pg_basebackup")), "-d", self.dsn(), "-D", str(other.data), "-R", "-X", "stream", "-c"]
        run([*command, "fast"])
        with (other.data / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {other.port}\n")
        return other.start()

    def promote(self) -> None:
        run([str(program("pg_ctl")), "promote", "-D", str(self.data), "-w"])

    def signal(self, number: int) -> None:
        """Send a signal to the server and all of its processes."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            os.kill(pid, number)

    def kill(self) -> None:
        """Kill all processes, as in a power failure."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)  # fast shutdown
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)


class PgBouncer:
    """A pooler in transaction mode in front of a server."""

    def __init__(self, server: Postgres) -> None:
        binary = str(program("pgbouncer"))
        need(program("pgbouncer") is not None, "pgbouncer", "apt-get install pgbouncer")
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
        major, minor = said.split()[1].split(".")[:2]
        self.prepares = (int(major), int(minor)) >= (1, 21)
        """Whether it carries prepared statements from one session to another."""
        self.root = private_directory()
        self.port = free_port()
        (self.root / "users.txt").write_text('"owner" ""\n')
        (self.root / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nauth_type = trust\nauth_file = {self.root / 'users.txt'}\n"
            "pool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 100\nunix_socket_dir =\n"
            + "max_prepared_statements = 100\n"
            * self.prepares
        )
        self.process = start([binary, str(self.root / "pgbouncer.ini")], self.root / "log")
        end = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < end, (self.root / "log").read_text()[-2000:]
                time.sleep(0.05)

    def dsn(self) -> str:
        return f"postgresql://owner@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(30)
        shutil.rmtree(self.root, ignore_errors=True)
