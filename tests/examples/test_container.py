"""The steps of the Containerfile, run by hand: no container engine is needed, and none is tried.

Each `COPY` and `RUN` works below a folder that stands for `/`, and the two stages share it. `HEALTHCHECK` and `CMD` run
as they are written, with the port replaced. What an engine adds is not seen: another user, a read-only disk, limits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from examples import demo

from .shop import free_port
from .test_deploy import BIN, KEY, running, text_of, wait_for

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("PROFILE_ENRICH_PACKAGING"), reason="makes a fresh environment: make test-packaging"
    ),
    pytest.mark.timeout(900),
]


class Container:
    """What the instructions of a Containerfile leave behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root
        self.healthcheck: list[str] = []
        self.command: list[str] = []

    def inside(self, text: str) -> str:
        """Put the absolute paths of a line below the folder."""
        return re.sub(r"(?<![\w./])/(?=(?:build|opt|srv|var)\b)", f"{self.root}/", text)

    def do(self, instruction: str, rest: str) -> None:
        if instruction == "WORKDIR":
            self.directory = Path(self.inside(rest))
            self.directory.mkdir(parents=True)
        elif instruction == "COPY":
            self.copy(*rest.split())
        elif instruction == "RUN":
            environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.root)}
            subprocess.run(
                ["sh", "-ec", self.inside(rest)], cwd=self.directory, env=environment, check=True, timeout=600
            )
        elif instruction == "HEALTHCHECK":
            self.healthcheck = json.loads(self.inside(rest.partition(" CMD ")[2]))
        elif instruction == "CMD":
            self.command = json.loads(self.inside(rest))
        else:
            assert instruction in ("FROM", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"), instruction

    def copy(self, *words: str) -> None:
        if words[0] == "--from=build":
            assert words[1] == words[2]
            assert Path(self.inside(words[1])).exists()
            return
        *sources, target = words
        there = self.directory / self.inside(target)
        for each in (demo.ROOT / source for source in sources):
            if each.is_dir():
                shutil.copytree(each, there, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place = there if there.suffix else there / each.name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(each, place)


def test_the_steps_of_the_containerfile_make_a_server_that_is_healthy_and_stops(tmp_path: Path) -> None:
    container = Container(tmp_path / "root")
    for line in text_of("Containerfile").splitlines():
        if line and not line.startswith("#"):
            instruction, rest = line.split(" ", 1)
            container.do(instruction, rest)
    service = yaml.safe_load(text_of("compose.yaml"))["services"]["profile-api"]
    (variable,) = service["environment"]
    port = str(free_port())
    command = [word.replace("8787", port) for word in container.command]
    (tmp_path / "tmp").mkdir()
    with running(command, **{variable: KEY, "TMPDIR": str(tmp_path / "tmp")}) as process:
        assert wait_for(f"http://127.0.0.1:{port}/healthz", process).status_code == 200
        subprocess.run([word.replace("8787", port) for word in container.healthcheck], check=True, timeout=60)
        record = httpx.get(
            f"http://127.0.0.1:{port}/api/v1/entities/1/record?record_id=2280",
            headers={"authorization": f"Bearer {KEY}"},
        )
        assert record.json()["data"]["household_id"] == "2280"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    unhealthy = [word.replace("8787", port) for word in container.healthcheck]
    failed = subprocess.run(unhealthy, capture_output=True, timeout=60, check=False)
    assert failed.returncode != 0
