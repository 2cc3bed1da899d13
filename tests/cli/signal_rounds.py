"""Start each long-running command, send it a signal at a random moment, and check the result."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.store.shipping import publish_store
from profile_enrich.testing import VendorServer, faults

from .forked_commands import ForkedCommand, ForkingProcess

__all__ = ["COMMANDS", "NUMBERS", "Commands"]

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
ROWS = 100_000
KEPT = {"LOCK", "REFRESHING", "REFRESHED"}
"""What a store may have besides its data."""

# The command reports when it begins: before that, Python is starting and handles signals itself.
_BEGIN = "import sys, profile_enrich_command as c; sys.stderr.write('begun\\n'); sys.stderr.flush(); c.main()"
_KEY = "secret-token:sk_live_4242424242"
_SHIPPING_KEY = "the key of the manifests"
_DATA = ["--entity", "Users", "--id", "id"]

_DONE = ['"event": "done"', "Published generation"]
"""What a command says after its work: a signal may come while it ends."""

COMMANDS = {
    "serve": ["serve", "--data", "{users}", *_DATA, "--port", "0"],
    "serve with two workers": ["serve", "--data", "{users}", *_DATA, "--port", "0", "--workers", "2"],
    "serve of a published store": ["serve", "--from", "{published}", "--store", "{copy}", "--port", "0"],
    "serve of a relay": ["serve", "--mirror", "{mirror}", "--upstream", "census", "--entity", "Users", "--id", "id",
                         "--port", "0"],
    "serve that refreshes": ["serve", "--data", "{users}", *_DATA, "--port", "0", "--refresh-every", "1s"],
    "index build": ["index", "build", "--store", "{store}", "--data", "{large}", *_DATA],
    "index build of standard input": ["index", "build", "--store", "{store}", "--data", "-", "--format", "csv", *_DATA],
    "index refresh": ["index", "refresh", "--store", "{built}", "--data", "{large}", *_DATA],
    "index mirror": ["index", "mirror", "--mirror", "{mirror}", "--upstream", "census", "--entity", "Users", "--id",
                     "id", "--ids", "{ids}", "--rate", "50/s"],
    "index publish": ["index", "publish", "--store", "{source}", "--to", "{bucket}"],
    "enrich": ["enrich", "{users}", "-o", "{output}.csv", "--key", "id", "--fields", "tier", "--rate", "50/s"],
    "enrich to standard output": ["enrich", "{users}", "-o", "-", "--key", "id", "--rate", "50/s"],
    "export": ["export", "-o", "{output}.csv", "--limit", "1"],
    "export to a pipe that nobody reads": ["export", "--limit", "1000"],
}  # fmt: skip


@dataclass(frozen=True)
class Struck:
    """The result of a command that was sent a signal.

    Args:
        code: its exit code; `None` if it hung.
        seconds: from the signal to its end.
        cpu: seconds of processor time in that span, with its workers'.
        said: its standard error.
        left: the files and processes that it left.
        moment: seconds from its beginning to the signal.
        done: whether it had completed its work before the signal.
    """

    code: int | None
    seconds: float
    cpu: float
    said: str
    left: list[str]
    moment: float
    done: bool

    def wrong(self, number: int) -> str:
        """Return what is wrong, or nothing."""
        if self.done:
            return "traceback" if "Traceback" in self.said else ""
        # While the libraries are loaded, the system's own handling ends it: a shell shows the same code.
        if self.code not in (128 + number, -number):
            return f"signal {number} gave {self.code}"
        if "Traceback" in self.said:
            return "traceback"
        return f"left {self.left}" if self.left else ""


class Commands:
    """The commands, with their files and a slow vendor."""

    def __init__(self, directory: Path, vendor: VendorServer, forking: ForkingProcess) -> None:
        self._directory = directory
        self._vendor = vendor
        self._forking = forking
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", _BEGIN, "--version"], capture_output=True, check=True)
        self._loaded = time.monotonic() - began
        for name, rows in (("users", ROWS), ("large", 4 * ROWS)):
            lines = "".join(f"u{n},u{n}@x.example,{n}\n" for n in range(rows))
            (directory / f"{name}.csv").write_text(f"id,email,n\n{lines}")
        (directory / "ids").write_text("".join(f"u{n}\n" for n in range(ROWS)))
        build_store(directory / "built", [CollectionSpec("Users", [{"id": "u1", "email": "e", "n": 1}])])
        self._kept = {each.name for each in (directory / "built").iterdir()} | KEPT

    @classmethod
    @contextlib.contextmanager
    def prepared(cls, directory: Path) -> Generator[Commands]:
        """Make the files, and start the vendor."""
        for number in NUMBERS:  # background jobs of a shell ignore SIGINT, and the commands would inherit that
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        people = {f"p{n:05}": {"tier": "gold", "text": "x" * 500} for n in range(5_000)}
        with VendorServer(people, entity="Users", key=_KEY) as vendor:
            vendor.always(faults.Latency(0.02))
            with contextlib.closing(ForkingProcess()) as forking:
                yield cls(directory, vendor, forking)

    @cached_property
    def _source(self) -> Path:
        """Return a store that is slow to publish, already published."""
        path = self._directory / "source"
        build_store(path, [CollectionSpec("Users", self._directory / "large.csv", key="id")])
        publish_store(path, str(self._directory / "published"), key=_SHIPPING_KEY.encode())
        return path

    def strike(self, command: str, number: int) -> Struck:
        """Start a command, send it a signal at a random moment, and wait for its end.

        Every tenth time the signal comes while the libraries are loaded, otherwise while the command works.
        """
        place = Path(self._directory, "run")
        place.mkdir()
        (place / "t").mkdir()
        names = {
            "users": self._directory / "users.csv", "large": self._directory / "large.csv",
            "built": self._directory / "built", "store": place / "store", "output": place / "output",
            "mirror": place / "mirror", "ids": self._directory / "ids", "copy": place / "copy",
            "bucket": place / "bucket", "published": self._directory / "published",
        }  # fmt: skip
        if command in ("index publish", "serve of a published store"):
            names["source"] = self._source
        loading = random.random() < 0.1
        moment = random.uniform(0.001, self._loaded if loading else 0.3 if command == "index publish" else 2)
        arguments = [each.format(**names) for each in COMMANDS[command]]
        environment = {"TMPDIR": str(place / "t"), **self._settings(command)}
        with _fresh(arguments, environment) if loading else self._forking.start(arguments, environment) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stderr.readline()
            with contextlib.suppress(BrokenPipeError):
                if command.endswith("input"):
                    process.stdin.write(b"id,tier\n" + b"u1,gold\n" * 4000)
                    process.stdin.flush()
            time.sleep(moment)
            ended = process.poll() is not None
            spent = _processor_time(process.pid)
            process.send_signal(number)
            began = time.monotonic()
            code: int | None = None
            try:
                code = process.wait(20)
            except (subprocess.TimeoutExpired, TimeoutError):
                os.kill(process.pid, signal.SIGKILL)
            seconds = time.monotonic() - began
            cpu = process.cpu - spent if isinstance(process, ForkedCommand) and not ended else 0.0
            said = process.stderr.read().decode()
        left = [each.name for each in (place / "t").iterdir()]
        if (place / "store").is_dir():
            left += [each.name for each in (place / "store").iterdir() if each.name not in KEPT]
        left += [each.name for each in (self._directory / "built").iterdir() if each.name not in self._kept]
        left += [each.name for each in place.glob("output*") if each.suffix not in (".part", ".resume")]
        left += [each.name for each in (place / "bucket").rglob("*") if "#" in each.name]
        shutil.rmtree(place)
        return Struck(code, seconds, cpu, said, left, moment, done=ended or any(each in said for each in _DONE))

    def _settings(self, command: str) -> dict[str, str]:
        if command in ("index mirror", "serve of a relay"):
            return {
                "PROFILE_ENRICH_API_KEY": "the-secret-of-the-server",
                "PROFILE_ENRICH_UPSTREAM_KEY": _KEY,
                "PROFILE_ENRICH_UPSTREAM_URL": self._vendor.base_url,
            }
        if command.startswith("enrich"):
            return {
                "PROFILE_ENRICH_API_KEY": _KEY, "PROFILE_ENRICH_ENTITY": "Users",
                "PROFILE_ENRICH_BASE_URL": self._vendor.base_url,
            }  # fmt: skip
        if command.startswith("export"):
            return {
                "PROFILE_ENRICH_TOKEN": _KEY, "PROFILE_ENRICH_TENANT": "acme", "PROFILE_ENRICH_INDEX": "Users",
                "PROFILE_ENRICH_BASE_URL": self._vendor.amperity_url,
            }  # fmt: skip
        return {"PROFILE_ENRICH_API_KEY": "the-secret-of-the-server", "PROFILE_ENRICH_SHIPPING_KEY": _SHIPPING_KEY}


def _fresh(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _BEGIN, *arguments], env={**os.environ, **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _processor_time(pid: int) -> float:
    """Return the seconds used by a running process and its ended children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # not Linux
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
