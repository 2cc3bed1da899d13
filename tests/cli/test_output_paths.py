"""Every path option of every command, with every kind of path that it must not overwrite."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from profile_enrich.cli.app import cli
from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.store.mirror_store import MirrorStore
from profile_enrich.testing import VendorServer

KEY = "k" * 20

ENV: dict[str, str | None] = {
    "PROFILE_ENRICH_STORE": None,
    "PROFILE_ENRICH_KEYS_FILE": None,
    "PROFILE_ENRICH_SHIPPING_KEY": "sixteen-characters-and-more",
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[VendorServer]:
    with VendorServer({"u1": {"tier": "gold"}}, entity="Users", key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are slow to make; each test gets a copy."""
    place = tmp_path_factory.mktemp("built")
    (place / "users.csv").write_text("user_id,n\nu1,1\nu2,2\n")
    build_store(place / "a.store", [CollectionSpec("users", place / "users.csv", key="user_id")])
    with MirrorStore(place / "users.mirror") as mirror:
        mirror.add_collection("users", key="user_id")
    return place


@pytest.fixture
def place(built: Path) -> Generator[Path]:
    """A directory with a source, a store over it, and files of the user's.

    It is not one of pytest's: each pytest that starts closes the directory of them all to other users.
    """
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(built, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        yield filled(Path(folder))


def filled(place: Path) -> Path:
    (place / "mine.txt").write_text("mine\n")
    (place / "server.toml").write_text("[server]\nno_auth = true\n")
    os.mkfifo(place / "pipe")
    (place / "folder").mkdir()
    (place / "link").symlink_to("mine.txt")
    (place / "broken").symlink_to("nothing/at/all")
    return place


def invoke(vendor: VendorServer, *words: str | Path) -> Result:
    env = {"PROFILE_ENRICH_API_KEY": KEY, "PROFILE_ENRICH_BASE_URL": vendor.base_url, **ENV}
    more = [] if words[0] in ("index", "keys", "serve", "export") else ["--entity", "Users"]
    if words[0] == "export":
        env |= {"PROFILE_ENRICH_BASE_URL": vendor.amperity_url, "PROFILE_ENRICH_API_KEY": None}
        more = ["--token", KEY, "--tenant", "acme", "--index", "Users"]
    return CliRunner(env=env).invoke(cli, [*(vendor.base_url if word == "URL" else str(word) for word in words), *more])


Arguments = Callable[[Path, Path], list[str | Path]]
"""The words of a command, given the directory and the path that it is to write."""

WRITTEN: dict[str, Arguments] = {
    "enrich --output": lambda at, path: [
        *("enrich", at / "users.csv", "--key", "user_id", "--force", "-o", path, "--output-format", "jsonl")
    ],
    "enrich --dead-letter": lambda at, path: [
        *("enrich", at / "users.csv", "--key", "user_id", "--force", "-o", at / "out.csv", "--dead-letter", path)
    ],
    "export --output": lambda at, path: ["export", "--force", "-o", path],
    "index build --store": lambda at, path: [
        *("index", "build", "--data", at / "users.csv", "--id", "user_id", "--store", path)
    ],
    "index build --rejects": lambda at, path: [
        *("index", "build", "--data", at / "users.csv", "--id", "user_id", "--store", at / "new", "--rejects", path)
    ],
    "index refresh --rejects": lambda at, path: [
        *("index", "refresh", "--data", at / "users.csv", "--id", "user_id", "--store", at / "a.store"),
        *("--rejects", path),
    ],
    "index publish --to": lambda at, path: ["index", "publish", "--store", at / "a.store", "--to", path],
    "index mirror --mirror": lambda at, path: [
        *("index", "mirror", "--upstream", "census", "--upstream-key", KEY, "--upstream-url", "URL"),
        *("--entity", "Users", "--ids", at / "users.csv", "--id", "user_id", "--mirror", path),
    ],
    "index refresh --mirror": lambda at, path: [
        *("index", "refresh", "--mirror", path, "--data", at / "users.csv", "--id", "user_id")
    ],
    "index refresh --mirror --rejects": lambda at, path: [
        *("index", "refresh", "--mirror", at / "users.mirror", "--data", at / "users.csv", "--id", "user_id"),
        *("--entity", "users", "--rejects", path),
    ],
    "keys add --keys-file": lambda at, path: ["keys", "add", "someone", "--keys-file", path],
    "keys rotate --keys-file": lambda at, path: ["keys", "rotate", "someone", "--keys-file", path],
    "keys revoke --keys-file": lambda at, path: ["keys", "revoke", "someone", "--keys-file", path],
    "serve --store": lambda at, path: [
        *("serve", "--data", at / "users.csv", "--id", "user_id", "--no-auth", "--store", path)
    ],
    "serve --from --store": lambda at, path: ["serve", "--from", at / "folder", "--no-auth", "--store", path],
    "serve --mirror": lambda at, path: ["serve", "--no-auth", "--mirror", path],
    "serve --audit-log": lambda at, path: [
        *("serve", "--data", at / "users.csv", "--id", "user_id", "--no-auth", "--audit-log", path)
    ],
}

READ = {
    "enrich --store",
    "export --store",
    "lookup --store",
    "entities --store",
    "indexes --store",
    "doctor --store",
    "openapi --store",
    "openapi --keys-file",
    "index status --store",
    "index list --store",
    "index publish --store",
    "index build --data",
    "index build --config",
    "index refresh --data",
    "index refresh --config",
    "index refresh --changes",
    "index refresh --tombstones",
    "index mirror --ids",
    "index mirror --store",
    "serve --data",
    "serve --config",
    "serve --keys-file",
    "serve --from",
    "keys list --keys-file",
    # The store must exist: nothing is created, see `test_a_store_that_is_not_there_is_not_made`.
    "index refresh --store",
    "index drop --store",
    # It names the key file, which is tested by its own option.
    *(f"keys {name} --store" for name in ("add", "list", "revoke", "rotate")),
}


def path_options(command: click.Command, name: str = "") -> Iterator[str]:
    if isinstance(command, click.Group):
        for word, each in command.commands.items():
            yield from path_options(each, f"{name} {word}".strip())
        return
    for parameter in command.params:
        if isinstance(parameter, click.Option) and (
            isinstance(parameter.type, click.Path) or {"--output", "--rejects", "--to", "--from"} & set(parameter.opts)
        ):
            yield f"{name} {max(parameter.opts, key=len)}"


def test_E6_no_path_option_is_missing_here() -> None:
    """E6: each option is listed as written or read; written ones are tested with every kind of path."""
    assert (
        set(path_options(cli)) == (set(WRITTEN) - {"serve --from --store", "index refresh --mirror --rejects"}) | READ
    )


# --- paths that must not be written -----------------------------------------------------------------------------------


@contextlib.contextmanager
def a_socket(path: Path) -> Generator[Path]:
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
            yield path
    finally:
        os.chdir(before)


BAD: dict[str, Callable[[Path], Path]] = {
    "the source": lambda at: at / "users.csv",
    "the source by a hard link": lambda at: at / "hard.csv",
    "a file of the user's": lambda at: at / "mine.txt",
    "a directory": lambda at: at / "folder",
    "inside of the store": lambda at: at / "a.store" / "CURRENT",
    "a pipe": lambda at: at / "pipe",
    "a socket": lambda at: at / "socket",
    "a device": lambda at: Path("/dev/null"),
    "a full device": lambda at: Path("/dev/full"),
    "a link": lambda at: at / "link",
    "a broken link": lambda at: at / "broken",
    "no directory": lambda at: at / "missing" / "out.jsonl",
    "in a file": lambda at: at / "mine.txt" / "out.jsonl",
    "a long name": lambda at: at / f"{'x' * 300}.jsonl",
    "no permission": lambda at: at / "locked" / "out.jsonl",
}

FINE = {
    # The option's purpose.
    *((name, "a directory") for name in ("index build --store", "index publish --to", "serve --store")),
    ("serve --from --store", "a directory"),
    # Its parent directories are created.
    *((name, "no directory") for name in ("index build --store", "index publish --to", "serve --store")),
    ("serve --from --store", "no directory"),
    # Only with --force; without it they are refused, see the tests of these commands.
    *((name, "a file of the user's") for name in ("enrich --output", "enrich --dead-letter", "export --output")),
    # Lines are added to it; standard error is one.
    *(("serve --audit-log", kind) for kind in ("a file of the user's", "a device", "a full device", "a link")),
    # Nothing here reads users.csv or the store.
    *((name, kind) for name in ("export --output",) for kind in BAD if "source" in kind or "inside" in kind),
    *((name, "inside of the store") for name in ("enrich --output", "enrich --dead-letter")),
    ("serve --audit-log", "inside of the store"),
}


def tree(place: Path) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    for path in place.rglob("*"):
        if path.name in ("REFRESHED", "REFRESHING"):  # a refused refresh is noted
            continue
        mode = path.lstat().st_mode
        found[str(path.relative_to(place))] = (stat.S_IFMT(mode), path.read_bytes() if stat.S_ISREG(mode) else b"")
    return found


@contextlib.contextmanager
def as_nobody(path: Path) -> Generator[None]:
    """Make the content of a directory unwritable even for root."""
    path.mkdir(mode=0o555)
    if os.geteuid() != 0:
        yield
        return
    for each in path.parent.rglob("*"):
        if each != path:
            os.chown(each, 65534, -1, follow_symlinks=False)
    path.parent.chmod(0o777)
    for parent in path.parent.parents:
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o077 == 0:
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


NO_DASH = {
    *("enrich --output", "export --output"),  # standard output
    *("index publish --to", "index refresh --mirror"),  # a URL; and what must be there already
}


@pytest.mark.parametrize("name", sorted(set(WRITTEN) - NO_DASH))
def test_E6_a_dash_is_no_file(place: Path, vendor: VendorServer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """E6: an option that cannot write to standard output creates no file called `-`, and does not suggest `-`."""
    monkeypatch.chdir(place)
    before, calls = tree(place), len(vendor.calls)
    done = invoke(vendor, *WRITTEN[name](place, Path("-")))
    assert done.exit_code in (1, 2), done.output
    assert ": - is standard output, which this option cannot write to; name a " in " ".join(done.stderr.split())
    assert len(vendor.calls) == calls
    assert tree(place) == before
    if name != "serve --audit-log":
        assert "write -" not in invoke(vendor, *WRITTEN[name](place, Path("/dev/null"))).stderr


def test_E6_dead_letters_of_standard_output_are_no_dash_either(place: Path, vendor: VendorServer) -> None:
    done = invoke(vendor, "enrich", place / "users.csv", "--key", "user_id", "--dead-letter", "-")
    assert (done.exit_code, "dead letters: - is standard output, which" in done.stderr) == (1, True)
    assert done.stdout == ""


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", WRITTEN)
def test_E6_nothing_is_written_that_must_not_be(place: Path, vendor: VendorServer, name: str, kind: str) -> None:
    """E6: the error names the path before the work starts, and nothing is changed."""
    if (name, kind) in FINE:
        pytest.skip("may be written")
    os.link(place / "users.csv", place / "hard.csv")
    path = BAD[kind](place)
    with contextlib.ExitStack() as stack:
        if kind == "a socket":
            stack.enter_context(a_socket(path))
        before, calls = tree(place), len(vendor.calls)
        if kind == "no permission":
            stack.enter_context(as_nobody(place / "locked"))
            before["locked"] = (stat.S_IFDIR, b"")
        done = invoke(vendor, *WRITTEN[name](place, path))
    assert done.exit_code in (1, 2), done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert path.name[:20] in done.stderr
    assert len(vendor.calls) == calls
    assert tree(place) == before


def test_E6_the_users_databases_are_not_taken_for_data_of_a_store(place: Path, vendor: VendorServer) -> None:
    """E6: a store deletes only its own data files, by their names."""
    for folder in ("new", "a.store"):
        (place / folder).mkdir(exist_ok=True)
        (place / folder / "crm.db").write_text("mine")
    build: list[str | Path] = ["index", "build", "--data", place / "users.csv", "--id", "user_id", "--store"]
    before = tree(place)
    refused = invoke(vendor, *build, place / "new")
    assert tree(place) == before  # also no lock file
    assert refused.exit_code == 2
    assert "holds other files" in refused.stderr
    assert invoke(vendor, *build, place / "a.store").exit_code == 0
    assert (place / "new" / "crm.db").read_text() == (place / "a.store" / "crm.db").read_text() == "mine"


@pytest.mark.parametrize(
    "words", [["status"], ["list"], ["refresh"], ["drop", "users", "--yes"], ["publish", "--to", "x"]]
)
def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, vendor: VendorServer, words: list[str]) -> None:
    done = invoke(vendor, "index", *words, "--store", tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "there is no store in" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["a.store", "folder"])
def test_E6_a_copy_of_what_is_published_replaces_nothing_else(place: Path, vendor: VendorServer, folder: str) -> None:
    (place / "folder" / "mine.txt").write_text("mine")
    assert invoke(vendor, "index", "publish", "--store", place / "a.store", "--to", place / "published").exit_code == 0
    before = tree(place)
    done = invoke(vendor, "serve", "--no-auth", "--from", place / "published", "--store", place / folder)
    assert done.exit_code == 2
    assert "holds files that were not published" in done.stderr
    assert tree(place) == before


def test_E6_another_database_is_no_mirror(place: Path, vendor: VendorServer) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(place / "app.db")) as connection:
        connection.execute("CREATE TABLE orders (id)")
    before = tree(place)
    done = invoke(vendor, "serve", "--no-auth", "--mirror", place / "app.db")
    assert done.exit_code == 2
    assert "is another database" in done.stderr
    assert tree(place) == before


def test_E6_a_key_file_keeps_what_it_is(place: Path, vendor: VendorServer) -> None:
    """E6: a symbolic link to the key file is read, and not replaced by a file."""
    assert invoke(vendor, "keys", "add", "a", "--keys-file", place / "keys.json").exit_code == 0
    (place / "current").symlink_to("keys.json")
    assert json.loads(invoke(vendor, "keys", "list", "--keys-file", place / "current").stdout)[0]["id"] == "a"
    done = invoke(vendor, "keys", "add", "b", "--keys-file", place / "current")
    assert (done.exit_code, "symbolic link" in done.stderr) == (2, True)
    assert (place / "current").is_symlink()
