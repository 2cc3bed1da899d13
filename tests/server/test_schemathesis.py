"""P1: the vendor's own OpenAPI file and the server's, with all of schemathesis's checks, against a real server.

In `make test` with every boundary value of every parameter, and few made-up requests; `THOROUGH=1` asks for many more,
and also without a key.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from profile_enrich.store import LocalStore

from .helpers import LIMITED, api, build, served

pytest.importorskip("schemathesis", reason="schemathesis is not installed")

ROOT = Path(__file__).parent.parent.parent
VENDOR = ROOT.parent / "shared" / "specs" / "amperity-profile-2025-07-31.openapi.json"
THOROUGH = bool(os.environ.get("THOROUGH"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LocalStore(build(tmp_path_factory.mktemp("schemathesis"))) as store, served(api(store)) as running:
        yield running


def schemathesis(directory: Path, *arguments: str) -> str:
    phases, examples = ("examples,coverage,fuzzing,stateful", "100") if THOROUGH else ("coverage", "1")
    done = subprocess.run(
        [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", *arguments,
            "--phases", phases, "--max-examples", examples, "--seed", "1", "--generation-database", "none",
            "--no-color", "--workers", "1",
        ],
        capture_output=True,
        text=True,
        cwd=directory,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("COV")},
            "SCHEMATHESIS_HOOKS": "tests.server.schemathesis_hooks",
            "PYTHONPATH": str(ROOT),
        },
        timeout=900,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def number_of_requests(output: str) -> int:
    found = re.search(r"(\d+) generated", output)
    assert found is not None, output[-2000:]
    return int(found[1])


def key() -> list[str]:
    return ["--header", f"Authorization: Bearer {LIMITED}"]


@pytest.mark.long
def test_the_servers_own_description(url: str, tmp_path: Path) -> None:
    # A key that sees one index: which attributes can be filtered by differs from index to index, and a description of
    # parameters cannot say that. Amperity's endpoints are tested with the vendor's file.
    leave_out = [] if THOROUGH else ["--exclude-path-regex", "^/api/indexes"]
    assert number_of_requests(schemathesis(tmp_path, f"{url}/openapi.json", *key(), *leave_out)) > 100


@pytest.mark.skipif(
    not VENDOR.is_file(), reason=f"the vendor's OpenAPI file is not at {VENDOR.parent.name}/{VENDOR.name}"
)
@pytest.mark.parametrize("who", ["a key", *(["nobody"] if THOROUGH else [])])
@pytest.mark.long
def test_P1_the_vendors_description(url: str, tmp_path: Path, who: str) -> None:
    # The check `ignored_auth` also asks each endpoint without a key and with a wrong one.
    headers = [*(key() if who == "a key" else []), "--header", "amperity-tenant: acme"]
    assert number_of_requests(schemathesis(tmp_path, str(VENDOR), "--url", f"{url}/api", *headers)) > 20
