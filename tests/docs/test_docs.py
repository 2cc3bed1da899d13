"""The documents are correct: their code runs, and their tables match the code."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import profile_enrich
from profile_enrich import ProfileEnrichError, Status, errors

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = Sybil(parsers=[PythonCodeBlockParser()])
ENGINES = {"beam.md": "apache_beam", "faststream.md": "faststream", "scaling.md": "dask"}
"""Pages whose code runs where their engine is installed, in the tests of the engine."""
SERVICES = ("postgresql.md",)
"""Pages whose code runs in `make test-services`."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path) -> None:
    if page.name in ENGINES and importlib.util.find_spec(ENGINES[page.name]) is None:
        pytest.skip("runs where its engine is installed: make test-engines")
    if page.name in SERVICES:
        pytest.skip("runs beside the service that it is about: make test-services")
    document = CODE.parse(page)
    for example in document:
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_error_and_every_status_is_documented() -> None:
    failing = (ROOT / "docs" / "failing.md").read_text(encoding="utf-8")
    for name in errors.__all__:
        cls = getattr(errors, name)
        if cls not in (ProfileEnrichError, errors.ProfileUnavailable, errors.SourceError):
            assert f"| `{cls.code}` |" in failing, cls
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for status in Status:
        assert f"| `{status.value}` |" in readme


def test_what_the_readme_imports_is_exported() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for names in re.findall(r"^from profile_enrich import (.+)$", readme, re.MULTILINE):
        assert {name.strip() for name in names.split(",")} <= set(profile_enrich.__all__)


@pytest.mark.long  # test_docs_followed.py runs all commands of the README, and compares their output
def test_the_readmes_commands_work_against_the_server_it_starts(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (serve,) = re.findall(r"^\$ profile-enrich (serve .+)$", readme, re.MULTILINE)
    asking = re.findall(r"^\$ profile-enrich ((?:lookup|export|doctor) .+)$", readme, re.MULTILINE)
    assert len(asking) == 3
    (tmp_path / "users.csv").write_text("user_id,email,tier\n478060,a@b.example,gold\n", encoding="utf-8")
    key = "a-key-of-this-test-only"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PROFILE_ENRICH_")},
        "PROFILE_ENRICH_API_KEY": key,
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "profile_enrich"]
    server = subprocess.Popen(
        [*command, *serve.split(), "--port", port],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), timeout=1):
                break
            time.sleep(0.1)
        for line in asking:
            arguments = line.replace("8787", port).split()
            done = subprocess.run(
                [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, (line, done.stderr)
    finally:
        server.terminate()
        server.wait(30)
    assert "478060,a@b.example,gold" in (tmp_path / "profiles.csv").read_text(encoding="utf-8")
