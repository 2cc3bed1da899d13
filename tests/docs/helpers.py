"""Helpers that read the documents: their code, headings and commands."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"

_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def text_of(page: Path | str) -> str:
    """Return the Markdown of a page, by its path or its name in docs."""
    return (DOCS / page).read_text(encoding="utf-8")


def code_of(page: Path | str) -> dict[str, Any]:
    """Run the code of a page, and return its globals."""
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(DOCS / page)
    for example in document:
        example.evaluate()
    return document.namespace


def without_code(markdown: str) -> str:
    """Return the prose of a page, without its code blocks."""
    return re.sub(r"^(```|~~~).*?^\1[ \t]*$", "", markdown, flags=re.MULTILINE | re.DOTALL)


def anchors_of(markdown: str) -> set[str]:
    """Return the anchors of a page's headings."""
    return {
        re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())
        for heading in _HEADING.findall(without_code(markdown))
    }


def commands_of(block: str) -> Iterator[tuple[str, list[str]]]:
    """Return the commands of a console block, each with its output lines."""
    command, output = "", list[str]()
    goes_on = False
    for line in block.splitlines():
        if goes_on:
            command += "\n" + line
        elif line.startswith("$ "):
            if command:
                yield command, output
            command, output = line[2:], []
        else:
            output.append(line)
        goes_on = line.endswith("\\")
    if command:
        yield command, output


def typed_in(page: Path) -> Iterator[str]:
    """Return all commands of a page, with continued lines joined."""
    for kind, _, body in _FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "console":
            for command, _ in commands_of(body):
                yield re.sub(r"\\\n\s*", "", command)


class Reader:
    """Follow a page: write its files, run its commands, and compare their output.

    Servers that the page starts run until another one takes their port, or until the end. Ports are free ones.

    Args:
        page: its name in docs, or the path of another page.
        folder: where the reader works.
        environment: what the reader has exported before.
    """

    def __init__(self, page: Path | str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._text = text_of(page)
        self._folder = folder
        self.ports = {"8000": _free_port(), "8787": _free_port()}
        self.environment = {
            # Without the variables that measure coverage in each command, which is slow.
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PROFILE_ENRICH_", "COVERAGE_", "COV_CORE_"))
            },
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PROFILE_ENRICH_PORT": self.ports["8787"],
            **(environment or {}),
        }
        self.typed: list[str] = []
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    def follow(self) -> None:
        """Run everything, in the page's order."""
        for kind, title, body in _FENCE.findall(self._text):
            if title:
                (self._folder / title).write_text(self._ported(body), encoding="utf-8")
            elif kind == "console":
                for command, output in commands_of(self._ported(body)):
                    self.type(command, output)

    def type(self, command: str, output: list[str] | None = None) -> str:
        """Run one command, compare its output with `output` if given, and return it."""
        self.typed.append(command)
        if command.startswith(("pip install ", "make ")):
            return ""
        for beginning, port in (("uvicorn ", "8000"), ("profile-enrich serve ", "8787")):
            if command.startswith(beginning):
                self._start(command, port)
                return ""
        for retry_timeout in (0.2, 1.0, 3.0):  # a page that was requested too early is requested again, as in a browser
            printed = self._run(command)
            if not output or fnmatch.fnmatchcase(printed.rstrip("\n"), _pattern(output)):
                return printed
            assert command.startswith("curl "), (command, printed)
            time.sleep(retry_timeout)
        raise AssertionError((command, printed))

    def _run(self, command: str) -> str:
        exported = self._folder / ".exported"
        done = subprocess.run(
            ["bash", "-c", f"set -e\n{command}\nenv -0 > {exported}"],
            cwd=self._folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        self.environment = dict(each.split("=", 1) for each in exported.read_text().split("\0") if "=" in each)
        return done.stdout

    def stop(self, port: str) -> None:
        """Stop the server on that port, as Ctrl-C does."""
        server = self._servers.pop(port, None)
        if server is not None:
            server.terminate()
            server.wait(30)

    @contextlib.contextmanager
    def at_work(self) -> Generator[Reader]:
        """Follow the page, and stop its processes at the end."""
        try:
            self.follow()
            yield self
        finally:
            for port in list(self._servers):
                self.stop(port)

    def _start(self, command: str, port: str) -> None:
        self.stop(port)
        log = self._folder / f"{port}.log"
        with log.open("wb") as file:
            server = subprocess.Popen(command.split(), cwd=self._folder, env=self.environment, stdout=file, stderr=file)
        self._servers[port] = server
        until = time.monotonic() + 30
        while time.monotonic() < until and server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(self.ports[port])), 1):
                return
            time.sleep(0.05)
        raise AssertionError((command, log.read_text(encoding="utf-8")))

    def _ported(self, text: str) -> str:
        for written, port in self.ports.items():
            text = re.sub(rf"\b{written}\b", port, text)
        return text


def _pattern(lines: list[str]) -> str:
    """Return a pattern for an expected output, in which only `…` is special."""
    return re.sub(r"([\[*?])", r"[\1]", "\n".join(lines)).replace("…", "*")


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
