"""The documents as a site: every page is in the navigation, every link works, every picture is current."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from profile_enrich import CachePolicy, MemorySource, ProfileClient, Status
from profile_enrich.cli.app import cli
from profile_enrich.testing import ManualClock
from tools import plots

from .helpers import DOCS, ROOT, anchors_of, code_of, text_of, typed_in, without_code

CONFIGURATION = ROOT / "zensical.toml"
PAGES = sorted(DOCS.rglob("*.md"))
TYPED = sorted({(page.name, command) for page in [ROOT / "README.md", *PAGES] for command in typed_in(page)})


def _pages_of(navigation: list[Any]) -> list[str]:
    """The pages of a navigation, in order."""
    found: list[str] = []
    for entry in navigation:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += _pages_of(value) if isinstance(value, list) else [value]
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    project = tomllib.loads(CONFIGURATION.read_text(encoding="utf-8"))["project"]
    assert sorted(_pages_of(project["nav"])) == [page.relative_to(DOCS).as_posix() for page in PAGES], (
        "see nav in zensical.toml"
    )


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_to_pages_of_the_site_and_to_headings_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.is_file(), target
        assert not page.is_relative_to(DOCS) or there.resolve().is_relative_to(DOCS), (
            f"{target} is not part of the site"
        )
        if anchor:
            assert anchor in anchors_of(there.read_text(encoding="utf-8")), target


@pytest.mark.parametrize(("page", "command"), TYPED)
def test_every_flag_of_a_command_exists(page: str, command: str) -> None:
    for arguments in re.findall(r"(?:^|[|(&] ?)profile-enrich ([^|>&)]*)", command):
        found: click.Command = cli
        for word in shlex.split(arguments, comments=True):
            if word.startswith("-") and word != "-":
                known = {flag for each in found.params for flag in (*each.opts, *each.secondary_opts)}
                assert word.split("=")[0] in known, (page, found.name, word)
            elif isinstance(found, click.Group):
                found = found.commands[word]
        assert not isinstance(found, click.Group)


def test_the_floors_of_the_architecture_are_those_that_are_enforced() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    (drawn,) = re.findall(r"^```text\n(.*?)^```$", text_of("architecture.md"), re.MULTILINE | re.DOTALL)
    assert drawn.splitlines() == [layer.replace("profile_enrich.", "") for layer in layers]


def test_the_plot_is_what_its_script_draws() -> None:
    assert plots.FILE.read_text(encoding="utf-8") == plots.draw(), "python -m tools.plots"


@pytest.fixture(scope="module")
def tuning() -> dict[str, Any]:
    return code_of("tuning.md")


@pytest.mark.parametrize(
    ("between", "ttl", "stale_ttl"), [(40.0, 60.0, 0.0), (100.0, 60.0, 60.0), (400.0, 60.0, 600.0)]
)
async def test_the_formulas_of_the_tuning_page_tell_what_the_client_does(
    tuning: dict[str, Any], between: float, ttl: float, stale_ttl: float
) -> None:
    clock, rng, visits = ManualClock(), random.Random(7), 3_000
    source = MemorySource({"u1": {"tier": "gold"}})
    counted = dict.fromkeys(Status, 0)
    async with ProfileClient(
        source, ttl=ttl, stale_ttl=stale_ttl, cache_policy=CachePolicy(jitter=0), timer=clock
    ) as profiles:
        for _ in range(visits):
            clock.advance(rng.expovariate(1 / between))
            counted[(await profiles.lookup("u1")).status] += 1
            while profiles.stats().in_flight:
                await asyncio.sleep(0)
    assert counted[Status.HIT] / visits == pytest.approx(tuning["fresh"](1 / between, ttl), abs=0.025)
    assert counted[Status.MISS] / visits == pytest.approx(tuning["waits"](1 / between, ttl, stale_ttl), abs=0.025)
    assert 1 - counted[Status.MISS] / visits == pytest.approx(plots.at_once(between, ttl, stale_ttl), abs=0.025)
    calls = tuning["calls"](1, 1 / between, ttl) * between  # for each visit
    assert source.calls / visits == pytest.approx(calls, abs=0.025)


@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="the docs tool is not installed: make docs")
@pytest.mark.long
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(CONFIGURATION, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    for page in PAGES:
        built = (tmp_path / "site" / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|link rel=.?stylesheet.?)[^>]+(?:src|href)=.?https?:", built), page.name
        if page.parent.name == "reference":
            names = re.findall(r"^::: (profile_enrich\S*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            assert all(f'id="{name}"' in built for name in names), page.name
            assert "Sentinel" not in built
