"""Tests of the contributors' tools: pre-commit, the workflow, the templates, and the source distribution."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def recipe_of(target: str) -> list[str]:
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None, target
    return [line.strip() for line in found[1].splitlines()]


def test_pre_commit_runs_what_make_lint_runs() -> None:
    linted = {line.split()[0].rpartition("/")[2] + " " + line.split()[1] for line in recipe_of("lint")}
    hooks = [
        hook["entry"] for repository in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]
    ]
    assert {entry.split()[0].rpartition("/")[2] + " " + entry.split()[1] for entry in hooks} == linted


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a checkout of git")
def test_the_pre_commit_configuration_is_valid() -> None:
    pytest.importorskip("pre_commit", reason="belongs to the group lint; install it with: pip install pre-commit")
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_the_readmes_test_command_on_every_supported_python() -> None:
    job = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]
    (command,) = [step["run"] for step in job["steps"] if "run" in step]
    assert command.startswith("make test")
    assert "`make test`" in (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    classified = [each.rpartition(" ")[2] for each in project["classifiers"] if re.search(r":: 3\.\d+$", each)]
    assert set(classified) <= set(job["strategy"]["matrix"]["python"])
    assert min(classified, key=lambda each: int(each.split(".")[1])) == project["requires-python"].removeprefix(">=")


def test_the_issue_templates_ask_for_what_is_needed() -> None:
    for template in ("bug.yml", "feature.yml"):
        form = read_yaml(f".github/ISSUE_TEMPLATE/{template}")
        assert {"name", "description", "body"} <= set(form)
        asked = [field for field in form["body"] if field["type"] != "markdown"]
        assert all(field["validations"]["required"] for field in asked)


def test_every_decision_has_its_parts_and_its_number() -> None:
    records = sorted((ROOT / "docs/decisions").glob("0*.md"))
    overview = (ROOT / "docs/decisions/index.md").read_text(encoding="utf-8")
    assert [int(each.name[:4]) for each in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
        assert f"]({record.name})" in overview
        assert text.startswith(f"# {int(record.name[:4])}. ")


def test_every_switched_off_check_of_the_package_has_its_reason() -> None:
    """Each `noqa` or `ignore` has a comment with the reason."""
    bare = re.compile(r"# *(?:noqa|type: ignore|pyright: ignore)(?:: ?[A-Z0-9, ]+|\[[\w, -]+\])?\s*$", re.MULTILINE)
    assert [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in sorted((ROOT / "profile_enrich").rglob("*.py"))
        for found in bare.finditer(path.read_text("utf-8"))
    ] == []


def test_make_mutants_names_files_and_tests_that_exist() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    selection = settings["pytest_add_cli_args_test_selection"]
    left_out = [one.removeprefix("--deselect=").split("::") for one in selection if one.startswith("--deselect=")]
    files = [*settings["only_mutate"], *(one for one in selection if not one.startswith("-"))]
    files += [file for file, *_ in left_out]
    assert [name for name in files if not (ROOT / name).is_file()] == []
    names = [(file, name) for file, *path in left_out for name in path if name != "runTest"]  # `runTest`: inherited
    assert [(file, name) for file, name in names if name not in (ROOT / file).read_text(encoding="utf-8")] == []
