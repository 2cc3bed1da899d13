"""The wheel and the sdist install and run the quick start in a fresh environment, on each Python that is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(900)  # it builds, and installs into fresh environments
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
QUICK_START = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import profile_enrich
from profile_enrich import MemorySource, MissingExtraError, ProfileClient, ProfileMiddleware, from_cookie

async def home(request):
    return PlainTextResponse(f"Hello {request.state.profile.get('first_name', 'there')}")

profiles = ProfileClient(MemorySource({"u1": {"first_name": "Ann"}}))
shop = Starlette(routes=[Route("/", home)], lifespan=profiles.lifespan)
app = ProfileMiddleware(shop, client=profiles, identify=from_cookie("user"))
with TestClient(app, cookies={"user": "u1"}) as browser:
    assert browser.get("/").text == "Hello Ann"
print(profile_enrich.__version__)
"""


def interpreter(version: str) -> str | None:
    """Return the path of a Python of this minor version, on the path or installed by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}*/bin/python{version}")))]
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-c", ""], capture_output=True, timeout=60, check=False)
        if done.returncode == 0:
            return candidate
    return None


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the sdist, and the wheel from the sdist, as `python -m build` does."""
    if not (ROOT / ".git").exists():
        pytest.skip("an unpacked sdist is not built again")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


def test_the_sdist_has_all_that_make_needs(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as packed:
        inside = {Path(*Path(name).parts[1:]).as_posix() for name in packed.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    present = {name for name in listed.splitlines() if (ROOT / name).is_file()}
    assert present - inside == set()


def test_the_wheel_has_the_package_its_command_its_types_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as packed:
        names = packed.namelist()
        (metadata,) = [packed.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    assert "profile_enrich/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"profile_enrich", "profile_enrich_command.py"}
    assert "](docs/" not in metadata.split("\n\n", 1)[1], "a relative link or picture is broken on an index page"


@pytest.mark.skipif(
    not os.environ.get("PROFILE_ENRICH_PACKAGING"), reason="makes fresh environments: make test-packaging"
)
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
@pytest.mark.parametrize("version", VERSIONS)
def test_it_installs_and_runs_the_quick_start(version: str, kind: str, built: dict[str, Path], tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    fresh = str(tmp_path / "venv/bin/python")
    install = [fresh, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", f"{built[kind]}[cli]"]
    subprocess.run(install, check=True, timeout=600)
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [fresh, "-c", QUICK_START], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = subprocess.run(
        [str(tmp_path / "venv/bin/profile-enrich"), "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() in said.stdout
    refused = subprocess.run(
        [str(tmp_path / "venv/bin/profile-enrich"), "serve", "--data", "x.csv", "--no-auth"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "pip install 'profile-enrich[server]'" in refused.stderr


HEAVY = {
    "aiohttp",
    "click",
    "django",
    "duckdb",
    "fastapi",
    "flask",
    "httpx2",
    "jinja2",
    "litestar",
    "numpy",
    "opentelemetry",
    "pandas",
    "polars",
    "prometheus_client",
    "pyarrow",
    "pydantic",
    "pyroaring",
    "redis",
    "rich",
    "sqlalchemy",
    "sqlite3",
    "uvicorn",
    "uvloop",
}


def modules_of(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    # What counts the branches imports modules of its own.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    return set(done.stdout.split())


def test_importing_the_package_loads_no_optional_library() -> None:
    loaded = modules_of("import profile_enrich")
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()


@pytest.mark.long
def test_importing_the_package_adds_few_modules_to_its_dependencies() -> None:
    """The number of modules bounds the time: 142 ms for all of them when it was measured."""
    needed = modules_of(
        "import asyncio, starlette.applications, starlette.middleware, starlette.requests, cachetools, httpx"
    )
    own = {name for name in modules_of("import profile_enrich") if name.startswith("profile_enrich")}
    others = modules_of("import profile_enrich") - needed - own
    assert len(own) < 130
    assert len(others) < 30, sorted(others)
