"""Attack a real `serve`, and print what it withstood: `python -m tests.server.attack [TRIES]` (`make attack`).

Each row is one attack with its figures. The exit code is 1 when a row failed.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

import httpx

KEY = "the-secret-of-the-attacked-server"
ROWS = 100_000
HEAD = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
RECORD = "/api/v1/entities/1/record?record_id=u1"


class Served:
    """A running `serve` with two workers."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        host, port = url.removeprefix("http://").split(":")
        self.address = (host, int(port))

    def get(self, path: str = "/healthz", timeout: float = 10) -> int | str:
        with httpx.Client(trust_env=False, timeout=timeout, headers={"authorization": f"Bearer {KEY}"}) as client:
            try:
                return client.get(self.url + path).status_code
            except httpx.HTTPError as error:
                return type(error).__name__

    def workers(self) -> list[int]:
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]

    def memory(self) -> int:
        """Megabytes of all processes."""
        total = 0
        for pid in (self.process.pid, *self.workers()):
            with contextlib.suppress(OSError):
                found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                total += int(found[1]) if found else 0
        return total // 1024


def command(directory: Path, *more: str) -> list[str]:
    data = ["--data", str(directory / "users.csv"), "--entity", "Users", "--id", "id"]
    return [sys.executable, "-m", "profile_enrich", "serve", *data, "--port", "0", *more]


def environment(directory: Path) -> dict[str, str]:
    temporary = directory / "t"
    temporary.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(temporary), "PROFILE_ENRICH_API_KEY": KEY}


@contextlib.contextmanager
def serving(directory: Path, *more: str, descriptors: int | None = None) -> Generator[Served]:
    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    with subprocess.Popen(
        command(directory, *more), env=environment(directory), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, preexec_fn=limit,  # before any thread is there
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            shown = next((line for line in process.stdout if "Profile API at" in line), "")
            yield Served(process, shown.split()[-1])
        finally:
            if process.poll() is None:
                process.kill()


def signals(directory: Path, tries: int) -> tuple[bool, str]:
    """Signals at random moments of building and serving."""
    wrong: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(tries):
        sent = random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        workers = random.choice(["1", "2"])
        with subprocess.Popen(
            command(directory, "--workers", workers), env=environment(directory), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            time.sleep(random.uniform(0.6, 3.0))
            began = time.monotonic()
            process.send_signal(sent)
            try:
                code: object = process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                code = "hangs"
            slowest = max(slowest, time.monotonic() - began)
            said = process.stderr.read() if process.stderr else ""
        # While Python still imports the package, its own handling ends it: a shell shows the same code.
        if code not in (128 + sent, -sent):
            wrong[f"{sent.name} gave {code}"] += 1
        if "Traceback" in said and code != -sent:
            wrong["traceback"] += 1
        left = list((directory / "t").iterdir())
        if left:
            wrong["something left behind"] += 1
            for each in left:
                subprocess.run(["rm", "-rf", str(each)], check=True)
    return (
        not wrong and slowest < 5,
        f"{tries} signals, {sum(wrong.values())} wrong {dict(wrong) or ''}; slowest end {slowest:.1f} s",
    )


def send(served: Served, first: bytes, more: bytes, times: int) -> None:
    with contextlib.suppress(OSError), socket.create_connection(served.address, 5) as connection:
        connection.settimeout(20)
        connection.sendall(first)
        for _ in range(times):
            connection.sendall(more)
        connection.recv(100)


def huge(directory: Path, _: int) -> tuple[bool, str]:
    """60 MB of header lines, a URL of 200 MB, 60 MB of trailers, each from ten clients at once."""
    line = b"x-a: " + b"b" * 1000 + b"\r\n"
    with serving(directory, "--workers", "2") as served:
        before = served.memory()
        slowest = 0.0
        for first, more, times in (
            (HEAD, line * 64, 940), (b"GET /", b"a" * 2**20, 200),
            (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", line * 64, 940),
        ):  # fmt: skip
            threads = [threading.Thread(target=send, args=(served, first, more, times)) for _ in range(10)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                began = time.monotonic()
                if served.get() != 200:
                    return False, "a health check failed"
                slowest = max(slowest, time.monotonic() - began)
        grown = served.memory() - before
    # The ten attackers run in this process as well, and delay the health check themselves.
    return grown < 64 and slowest < 10, f"{grown} MB more memory, slowest health check meanwhile {slowest:.2f} s"


def idle(directory: Path, _: int) -> tuple[bool, str]:
    """200 idle and 200 half-sent connections, with 64 descriptors a process."""
    with serving(directory, descriptors=64) as served:
        held: list[socket.socket] = []
        for number in range(400):
            with contextlib.suppress(OSError):
                made = socket.create_connection(served.address, 5)
                made.sendall(b"GET / HT" if number % 2 else b"")
                held.append(made)
        answers = [served.get(path) for path in ["/healthz", RECORD] * 5]
        for connection in held:
            connection.close()
    return answers == [200] * 10, f"answers meanwhile: {dict(Counter(answers))}"


def streams(directory: Path, _: int) -> tuple[bool, str]:
    """One key opens 400 change-feed streams; another needs one."""
    other = "the-secret-of-another-client-key"
    with serving(directory, "--key", KEY, "--key", other) as served:
        target = f"GET /api/v1/entities/1/changes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n"
        statuses: Counter[str] = Counter()
        held: list[socket.socket] = []
        for secret in [KEY] * 400 + [other]:
            made = socket.create_connection(served.address, 5)
            made.settimeout(5)
            made.sendall(target.replace(KEY, secret).encode())
            last = made.recv(12).decode()[9:]
            statuses[last] += 1
            held.append(made)
        for connection in held:
            connection.close()
    return last == "200", f"of one key: {dict(statuses)}; the other key: {last}"


def deaths(directory: Path, _: int) -> tuple[bool, str]:
    """Workers killed while the supervisor has no descriptor left, then SIGTERM right after a death."""
    with serving(directory, "--workers", "2") as served:
        used = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
        soft, hard = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (used - 1, hard))
        os.kill(served.workers()[0], signal.SIGKILL)
        time.sleep(2)
        during = served.get(RECORD)
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        limit = time.monotonic() + 40
        while len(served.workers()) < 2 and time.monotonic() < limit:
            time.sleep(0.1)
        back = len(served.workers())
        os.kill(served.workers()[0], signal.SIGKILL)
        began = time.monotonic()
        served.process.terminate()
        code = served.process.wait(20)
        seconds = time.monotonic() - began
    fine = (during, back, code) == (200, 2, 143) and seconds < 5
    return (
        fine,
        f"answer meanwhile {during}, {back} workers afterwards; SIGTERM after a death: {code} in {seconds:.1f} s",
    )


ATTACKS: list[Callable[[Path, int], tuple[bool, str]]] = [signals, huge, idle, streams, deaths]


def main() -> int:
    """Run all attacks."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    failed = 0
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        directory = Path(name)
        rows = "".join(f"u{n},u{n}@x.example,{n}\n" for n in range(ROWS))
        (directory / "users.csv").write_text(f"id,email,n\n{rows}")
        sys.stdout.write("| attack | withstood | figures |\n|---|---|---|\n")
        for attack in ATTACKS:
            fine, figures = attack(directory, tries)
            failed += not fine
            sys.stdout.write(f"| {(attack.__doc__ or '').rstrip('.')} | {'yes' if fine else 'NO'} | {figures} |\n")
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
