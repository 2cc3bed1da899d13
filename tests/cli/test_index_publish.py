"""`profile-enrich index publish`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from profile_enrich.cli.app import cli
from profile_enrich.store import CollectionSpec, LocalStore, build_store
from profile_enrich.store.shipping import GenerationFollower


def test_publish_and_follow(tmp_path: Path) -> None:
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "u1"}])])
    command = ["index", "publish", "--store", str(tmp_path / "s"), "--to", str(tmp_path / "bucket")]
    run = CliRunner(env={"PROFILE_ENRICH_SHIPPING_KEY": "the key of the manifests"}).invoke
    first = run(cli, command)
    assert (first.exit_code, "Published generation 1 as number 1: 1 files" in first.stderr) == (0, True), first.stderr
    again = run(cli, command)
    assert "published already" in again.stderr
    GenerationFollower(tmp_path / "copy", str(tmp_path / "bucket"), key=b"the key of the manifests").poll()
    with LocalStore(tmp_path / "copy") as store:
        assert store.get("Users", "u1") is not None


def test_what_is_missing_is_said_in_flags_and_variables(tmp_path: Path) -> None:
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "u1"}])])
    command = ["index", "publish", "--store", str(tmp_path / "s"), "--to", str(tmp_path / "b")]
    bare = CliRunner(env={"PROFILE_ENRICH_SHIPPING_KEY": None}).invoke(cli, command)
    assert bare.exit_code != 0
    stdout = CliRunner().invoke(cli, ["index", "publish", "--store", str(tmp_path / "s"), "--to", "-"])
    assert (stdout.exit_code, "--to: - is standard output" in stdout.stderr) == (2, True), stdout.stderr
    assert "PROFILE_ENRICH_SHIPPING_KEY" in bare.stderr
    wrong = CliRunner(env={"PROFILE_ENRICH_SHIPPING_KEY": "x" * 16}).invoke(cli, [*command, "--storage-option", "x"])
    assert "--storage-option: write NAME=VALUE" in wrong.stderr
