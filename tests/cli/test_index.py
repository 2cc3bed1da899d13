"""`profile-enrich index`: run by people and by schedulers."""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from profile_enrich.cli.app import cli
from profile_enrich.cli.build_progress import _progress_lines
from profile_enrich.cli.commands.index import _age, _size
from profile_enrich.store import BuildProgress, LocalStore
from profile_enrich.store.files.manifest import locked
from profile_enrich.store.writes.refresh_status import note_refresh, read_last_refresh
from tests.cli.test_cli import on_a_terminal

SECRET = "planted-password"
USERS = "user_id,email,zip\nu1,a@b.example,02134\nu2,b@b.example,10115\nu1,c@b.example,02134\n,d@b.example,1\n"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.csv"
    path.write_text(USERS)
    return path


@pytest.fixture
def store(tmp_path: Path, users: Path) -> Path:
    path = tmp_path / "profiles.store"
    assert index("build", "--data", users, "--id", "user_id", "--filter", "email", store=path).exit_code == 0
    return path


def index(command: str, *arguments: object, store: Path, data: bytes | None = None, **env: str) -> Result:
    words = ["index", command, "--store", str(store), *map(str, arguments)]
    clean: dict[str, str | None] = {"PROFILE_ENRICH_SQL_URL": None, "PROFILE_ENRICH_STORE": None, **env}
    return CliRunner().invoke(cli, words, input=data, env=clean)


def events(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]


def event(result: Result, name: str) -> dict[str, Any]:
    (found,) = [each for each in events(result) if each["event"] == name]
    return found


def records(store: Path, name: str = "users") -> dict[str, dict[str, Any]]:
    with LocalStore(store) as opened:
        return {each.id: each.attributes for each in opened.search(name, {}, limit=100)}


def test_build_tells_programs_what_became_of_the_rows(tmp_path: Path, users: Path) -> None:
    result = index("build", "--data", users, "--id", "user_id", "--filter", "email", store=tmp_path / "s")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert event(result, "built") == {
        "event": "built",
        "collection": "users",
        "generation": 1,
        "read": 4,
        "stored": 2,
        "duplicates": 1,
        "first_duplicate_row": 3,
        "rejected": {"the key is missing or empty": 1},
        "first_rejected_row": 4,
        "first_rejected_line": None,
        "rejects": None,
        "warnings": [],
    }
    assert events(result)[0]["rows"] == 4
    assert events(result)[-1]["event"] == "done"
    assert records(tmp_path / "s")["u1"]["email"] == "c@b.example"


def test_duplicates_fail_when_asked_to_and_the_old_data_stay(store: Path, users: Path) -> None:
    result = index("build", "--data", users, "--id", "user_id", "--on-duplicate", "fail", store=store)
    assert result.exit_code == 2
    assert "Error: 1 row has a key that an earlier row has; the first is row 3" in result.stderr
    with LocalStore(store) as opened:
        assert opened.generation == 1


def test_rows_left_out_are_in_the_file_that_was_asked_for(tmp_path: Path, users: Path) -> None:
    users.write_text(USERS + "u3,x,y,z\n")
    bad = tmp_path / "bad.jsonl"
    result = index("build", "--data", users, "--id", "user_id", "--rejects", bad, store=tmp_path / "s")
    assert event(result, "built")["rejects"] == str(bad)
    assert [json.loads(line)["reason"].split(";")[0] for line in bad.read_text().splitlines()] == [
        "more fields than the header line names",
        "the key is missing or empty",
    ]


def test_standard_input_is_read_and_a_refresh_needs_another_source(tmp_path: Path) -> None:
    lines = b'{"id": 1, "n": "a"}\n{"id": 2}\n'
    arguments = ("--data", "-", "--format", "jsonl", "--entity", "People")
    result = index("build", *arguments, store=tmp_path / "s", data=lines)
    assert result.exit_code == 0, result.stderr
    assert "People came from standard input, so name its source when you run `index refresh`" in result.stderr
    assert set(records(tmp_path / "s", "People")) == {"1", "2"}
    refused = index("refresh", store=tmp_path / "s")
    assert refused.exit_code == 2
    assert "the sources of the store in" in refused.stderr
    again = index("refresh", *arguments, "--changed-only", store=tmp_path / "s", data=lines + b'{"id": 3}\n')
    assert event(again, "refreshed")["inserted"] == 1


def test_options_of_files(tmp_path: Path) -> None:
    file = tmp_path / "export.txt.gz"
    file.write_bytes(gzip.compress("id\tphone\n1\té4917\n2\t4918\n".encode("latin-1")))
    arguments = ["--data", file, "--entity", "A", "--format", "csv", "--encoding", "latin-1", "--delimiter", r"\t"]
    assert index("build", *arguments, store=tmp_path / "s").exit_code == 0
    assert records(tmp_path / "s", "A")["1"] == {"id": "1", "phone": "é4917"}
    numbers = tmp_path / "n.csv"
    numbers.write_text("id,phone\n1,4917\n")
    assert index("build", "--data", numbers, "--type", "phone=text", store=tmp_path / "s").exit_code == 0
    assert records(tmp_path / "s", "n")["1"]["phone"] == "4917"


@pytest.fixture
def crm(tmp_path: Path) -> str:
    with contextlib.closing(sqlite3.connect(tmp_path / "crm.db")) as database:
        database.execute("CREATE TABLE users AS SELECT 1 AS id, 'Ada' AS name UNION ALL SELECT 2, 'Bob'")
        database.commit()
    return f"sqlite:///{tmp_path}/crm.db"


def test_a_query_is_a_source_and_is_asked_again_at_a_refresh(tmp_path: Path, crm: str) -> None:
    query = ("--sql", "SELECT * FROM users", "--entity", "Users")
    result = index("build", *query, store=tmp_path / "s", PROFILE_ENRICH_SQL_URL=crm)
    assert result.exit_code == 0, result.stderr
    assert records(tmp_path / "s", "Users")["1"] == {"id": 1, "name": "Ada"}
    with contextlib.closing(sqlite3.connect(tmp_path / "crm.db")) as database:
        database.execute("DELETE FROM users WHERE id = 1")
        database.commit()
    refused = index("refresh", "--changed-only", "--vanished", "delete", store=tmp_path / "s")
    assert refused.exit_code == 2
    assert "would lose 1 of its 2 records" in refused.stderr
    again = index("refresh", "--changed-only", "--vanished", "delete", "--allow-shrink", store=tmp_path / "s")
    assert event(again, "refreshed")["deleted"] == 1
    assert set(records(tmp_path / "s", "Users")) == {"2"}


def test_a_databases_url_is_never_shown(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/{SECRET}"
    result = index("build", "--sql", "SELECT 1 AS id", "--url", url, "--entity", "U", store=tmp_path / "s")
    assert result.exit_code == 2
    assert "the database cannot be reached" in result.stderr
    assert SECRET not in result.output


CONFIG = """
[serve]
port = 8787

[collections.People]
source = "users.csv"
key = "user_id"
filterable = ["email"]
types = { zip = "text" }

[collections.Orders]
source = "orders.jsonl"
"""


def test_a_toml_file_says_it_all(tmp_path: Path, users: Path) -> None:
    config = tmp_path / "profiles.toml"
    config.write_text(CONFIG)
    (tmp_path / "orders.jsonl").write_text('{"id": "o1"}\n')
    result = index("build", "--config", config, store=tmp_path / "s")
    assert result.exit_code == 0, result.stderr
    listed = json.loads(index("list", store=tmp_path / "s").stdout)
    assert [(each["name"], each["rows"], each["filterable"]) for each in listed] == [
        ("People", 2, ["email"]),
        ("Orders", 1, []),
    ]
    only = index("refresh", "--entity", "Orders", store=tmp_path / "s")
    assert [each["collection"] for each in events(only) if each["event"] == "built"] == ["Orders"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass --data FILE, --sql QUERY or --config FILE"),
        (["--data", "nowhere.csv"], "nowhere.csv is not there"),
        (["--data", "{users}"], "has no column 'id' (--id); its columns are: user_id, email, zip"),
        (["--data", "{users}", "--id", "user_id", "--filter", "mail"], "has no column 'mail' (--filter)"),
        (["--data", "-"], "standard input (-) needs --format: csv, tsv, jsonl, parquet"),
        (["--data", "-", "--format", "csv"], "a query or standard input has no name: pass --entity NAME"),
        (["--sql", "SELECT 1"], "--sql needs the database's URL: put it into PROFILE_ENRICH_SQL_URL"),
        (["--data", "{users}", "--type", "zip"], "--type zip: write COLUMN=TYPE"),
        (["--data", "{users}", "--type", "zip=date"], "there are text, integer, number and boolean"),
        (
            ["--data", "{users}", "--data", "b.csv", "--rejects", "x"],
            "--rejects x: with several --data, write ENTITY:F",
        ),
        (["--data", "{users}", "--data", "b.csv", "--type", "x=text"], "write ENTITY:COLUMN=TYPE, e.g. users:x=text"),
        (["--config", "{users}"], "users.csv is not TOML: "),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read: No such file"),
        (["--config", "{latin}"], "latin.toml is not UTF-8"),
        (["--config", "{empty}"], "empty.toml has no [collections.NAME] table"),
        (["--config", "{good}", "--id", "x"], "--config replaces the other options; leave out --id"),
        (["--config", "{good}", "--data", "x"], "--config replaces the other options; leave out --data"),
        (["--config", "{good}", "--entity", "X"], "there is no collection 'X'; there are: U"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, users: Path, arguments: list[str], message: str) -> None:
    files = {name: tmp_path / f"{name}.toml" for name in ("empty", "latin", "good")}
    files["empty"].write_text("[serve]\nport = 1\n")
    files["latin"].write_bytes(b"# \xe9\n")
    files["good"].write_text('[collections.U]\nsource = "users.csv"\nkey = "user_id"\n')
    words = [word.format(users=users, **files) for word in arguments]
    result = index("build", *words, store=tmp_path / "s")
    assert result.exit_code == 2
    assert f"{message}" in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "s" / "CURRENT").exists()


# --- refresh ----------------------------------------------------------------------------------------------------------


def test_a_full_refresh_takes_the_source_as_it_is_now(store: Path, users: Path) -> None:
    users.write_text("user_id,email,zip\nu9,z@b.example,1\n")
    refused = index("refresh", store=store)
    assert refused.exit_code == 2
    assert "If this is intended, pass --allow-shrink" in refused.stderr
    assert index("status", "--json", store=store).exit_code == 1
    result = index("refresh", "--allow-shrink", store=store)
    assert event(result, "built")["generation"] == 2
    assert set(records(store)) == {"u9"}
    more = index("refresh", "--data", users, "--id", "user_id", store=store)
    assert more.exit_code == 0
    assert json.loads((store / "SOURCES").read_text())["collections"]["users"]["filterable"] == []


def test_changes_and_tombstones(store: Path, tmp_path: Path) -> None:
    changes = tmp_path / "today.csv"
    changes.write_text("user_id,email,zip,gone\nu3,new@b.example,1,no\nu2,,,yes\n")
    result = index("refresh", "--changes", changes, "--deleted-column", "gone", store=store)
    found = event(result, "refreshed")
    assert (found["inserted"], found["deleted"], found["generation"]) == (1, 1, 2)
    assert set(records(store)) == {"u1", "u3"}
    assert "gone" not in records(store)["u3"]
    erased = tmp_path / "erased.txt"
    erased.write_text("u1\nnobody\n")
    result = index("refresh", "--tombstones", erased, store=store)
    assert event(result, "refreshed")["deleted"] == 1
    assert set(records(store)) == {"u3"}
    stream = ("--changes", "-", "--format", "jsonl", "--rejects", tmp_path / "bad.jsonl")
    result = index("refresh", *stream, store=store, data=b'{"user_id": "u4"}\n{\n')
    assert event(result, "refreshed")["rejects"] == str(tmp_path / "bad.jsonl")
    assert set(records(store)) == {"u3", "u4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--changes", "x.csv", "--changed-only"], "say all that changes"),
        (["--changes", "x.csv", "--data", "y.csv"], "say all that changes"),
        (["--tombstones", "x", "--vanished", "delete"], "say all that changes"),
        (["--tombstones", "nowhere.txt"], "nowhere.txt is not there, or is not a file"),
        (["--deleted-column", "gone"], "--deleted-column is a column of --changes FILE"),
        (["--tombstones", "{users}", "--deleted-column", "x"], "--deleted-column is a column of --changes FILE"),
        (["--changes", "x.csv", "--id", "x"], "--id, --filter and --type are as the collection was built"),
        (["--changes", "-"], "standard input (-) needs --format"),
        (["--changes", "nowhere.csv"], "nowhere.csv is not there"),
        (["--changes", "{users}", "--entity", "a", "--entity", "b"], "has no collection 'a'; there are: 'users'"),
        (["--changes", "{users}", "--entity", "users", "--entity", "users"], "with one --entity NAME"),
        (["--vanished", "delete"], "--vanished 'delete' needs --changed-only"),
        (["--id", "x"], "to describe them differently, name them again"),
        (["--entity", "x"], "there is no collection 'x'; there are: users"),
    ],
)
def test_refreshes_that_contradict_themselves(store: Path, users: Path, arguments: list[str], message: str) -> None:
    result = index("refresh", *[word.format(users=users) for word in arguments], store=store)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_E8_a_new_column_is_named_with_the_option_that_ignores_it(store: Path, users: Path, tmp_path: Path) -> None:
    changes = tmp_path / "today.csv"
    head, first = users.read_text().splitlines()[:2]
    changes.write_text(f"{head},shoe_size\n{first},44\n")
    result = index("refresh", "--changes", changes, store=store)
    assert result.exit_code == 2
    assert "has the column 'shoe_size', which the collection 'users' lacks" in result.stderr
    assert "pass --new-columns 'ignore'" in result.stderr
    assert index("refresh", "--changes", changes, "--new-columns", "ignore", store=store).exit_code == 0
    result = index("refresh", "--new-columns", "ignore", store=store)
    assert result.exit_code == 2
    assert "--new-columns needs --changed-only or --changes" in result.stderr
    users.write_text(
        "".join(
            f"{line},{'44' if number else 'shoe_size'}\n" for number, line in enumerate(users.read_text().splitlines())
        )
    )
    assert index("refresh", "--changed-only", store=store).exit_code == 2
    assert index("refresh", store=store).exit_code == 0
    assert index("refresh", "--changed-only", store=store).exit_code == 0


def test_a_refresh_beside_another_one_says_so(store: Path) -> None:
    with locked(store):
        result = index("refresh", store=store)
    assert result.exit_code == 2
    assert "another build of the store" in result.stderr


# --- status, list, drop -----------------------------------------------------------------------------------------------


def test_status_says_age_size_and_the_last_error(store: Path, users: Path) -> None:
    result = index("status", store=store)
    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (facts["generation"], facts["collections"], facts["rows"]) == (1, 1, 2)
    assert facts["bytes"] > 10_000
    assert 0 <= facts["age_seconds"] < 60
    assert facts["last_error"] is None
    users.unlink()
    assert index("refresh", store=store).exit_code == 2
    result = index("status", "--json", store=store)
    facts = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (facts["failures"], facts["last_error"]) == (1, f"{users} is not there")
    assert "The last refresh failed; the old data are still served." in result.stderr


def test_status_of_what_is_no_store(tmp_path: Path) -> None:
    for command in ("status", "list"):
        result = index(command, store=tmp_path)
        assert result.exit_code == 2
        assert "there is no store in" in result.stderr


@pytest.mark.long
def test_on_a_terminal_there_are_tables_and_sentences(tmp_path: Path, users: Path) -> None:
    env = {"PROFILE_ENRICH_STORE": str(tmp_path / "s")}
    bad = tmp_path / "bad.jsonl"
    build = ["index", "build", "--data", str(users), "--id", "user_id", "--rejects", str(bad)]
    code, shown = on_a_terminal(build, env)
    assert code == 0
    assert "users: 2 records of 4 rows." in shown
    assert "1 row left out: the key is missing or empty (the first: row 4)." in shown
    assert f"They are in {bad}" in shown.replace("\r\n", "")
    users.write_text("user_id,email,zip\nu1,c@b.example,02134\nu1,c@b.example,3\n,x,y\n")
    code, shown = on_a_terminal(["index", "refresh", "--changed-only"], env)
    assert "users: 3 rows read; 0 new, 1 changed" in shown
    assert "had the id of an earlier row" in shown
    assert "generation 2" in shown
    note_refresh(tmp_path / "s", read_last_refresh(tmp_path / "s").started_at, "no file")  # type: ignore[union-attr]  # it was refreshed
    code, shown = on_a_terminal(["index", "status"], env)
    assert code == 1
    assert "last error" in shown
    assert "KiB" in shown
    code, shown = on_a_terminal(["index", "list"], env)
    assert "entity_id" in shown
    assert "user_id" in shown


@pytest.mark.long
def test_drop_asks_unless_told_not_to(store: Path, users: Path) -> None:
    assert index("build", "--data", users, "--id", "user_id", "--entity", "B", store=store).exit_code == 0
    result = index("drop", "B", store=store)
    assert result.exit_code == 2
    assert "pass --yes to confirm" in result.stderr
    command = [sys.executable, "-m", "profile_enrich", "index", "drop", "B", "--store", str(store)]
    for answer, code, left in (("n\n", 1, {"users", "B"}), ("y\n", 0, {"users"})):
        assert _typed(command, answer) == code
        with LocalStore(store) as opened:
            assert {each.name for each in opened.collections()} == left
    assert index("drop", "users", "--yes", store=store).exit_code == 0
    assert json.loads((store / "SOURCES").read_text()) == {"collections": {}}
    assert index("drop", "users", "--yes", store=store).exit_code == 2
    assert json.loads(index("status", store=store).stdout)["updated_at"] is not None


def _typed(command: list[str], answer: str) -> int:
    """Run a command in a terminal, type the given text, and return the exit code."""
    import os
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        os.write(ours, answer.encode())
        code = process.wait(30)
    os.close(ours)
    os.close(theirs)
    return code


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, None), (5, "5 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_an_age_is_shown_in_its_unit(seconds: float | None, shown: str | None) -> None:
    assert _age(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(5, "5 bytes"), (2048, "2.0 KiB"), (1 << 21, "2.0 MiB"), (5 << 40, "5,120.0 GiB")]
)
def test_a_size_is_shown_in_its_unit(count: int, shown: str) -> None:
    assert _size(count) == shown


def test_lines_of_progress_come_once_a_second_with_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([100.0, 100.5, 102.0, 104.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    show = _progress_lines()
    for done in (0, 100, 500, 1000):
        show(BuildProgress("U", done, 1000))
    monkeypatch.undo()
    shown = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(each["rows"], each["rows_per_second"], each["eta_seconds"]) for each in shown] == [
        (0, None, None),
        (500, 250, 2.0),
        (1000, 250, 0.0),
    ]


def test_E8_tombstones_that_match_nothing_are_not_success(store: Path, tmp_path: Path) -> None:
    (tmp_path / "erased.txt").write_text('"u1"\nu2 \n')
    result = index("refresh", "--tombstones", tmp_path / "erased.txt", store=store)
    assert result.exit_code == 2
    assert "2 of the 2 ids to delete match no record" in result.stderr
    (tmp_path / "erased.txt").write_text('"u1"\nu2\n')  # one person is not deleted: an operator must check
    some = index("refresh", "--tombstones", tmp_path / "erased.txt", store=store)
    assert (some.exit_code, event(some, "refreshed")["unmatched_deletes"]) == (2, 1)
    (tmp_path / "erased.txt").write_text("u1\n")
    assert index("refresh", "--tombstones", tmp_path / "erased.txt", store=store).exit_code == 0


@pytest.mark.parametrize(("rows", "code"), [("u9,,,true\nu1,,,true\n", 0), ("u9,,,true\n", 2), ("u2,,,no\n", 0)])
def test_E8_deletes_in_a_feed_of_which_none_matches_are_not_success(
    store: Path, tmp_path: Path, rows: str, code: int
) -> None:
    """E8: some deletions may concern unknown records, but hardly all of them."""
    (tmp_path / "changes.csv").write_text(f"user_id,email,zip,gone\n{rows}")
    done = index("refresh", "--changes", tmp_path / "changes.csv", "--deleted-column", "gone", store=store)
    assert done.exit_code == code, done.stderr


@pytest.mark.parametrize("packed", ["csv", "jsonl", "rejects"])
def test_E8_a_build_that_can_store_nothing_is_not_success(tmp_path: Path, packed: str) -> None:
    """E8: also the first refresh, which has no earlier one to compare with."""
    source, bad = tmp_path / f"u.{packed.replace('rejects', 'csv')}", tmp_path / "bad.jsonl"
    source.write_text('{"id": 1.5}\n{"x": 1}\n' if packed == "jsonl" else "id,x\n,1\n,2\n")
    options = ["--rejects", bad] if packed == "rejects" else []
    done = index("build", "--data", source, *options, store=tmp_path / "s")
    assert done.exit_code == 2
    assert "none of its 2 rows can be stored" in done.stderr
    assert not (tmp_path / "s" / "CURRENT").exists()
    assert len(bad.read_text().splitlines()) == 2 if options else not bad.exists()


@pytest.mark.parametrize(("name", "content"), [("u.csv", "id,x\n"), ("u.jsonl", "")])
def test_E8_a_build_from_a_source_without_rows_is_not_success(tmp_path: Path, name: str, content: str) -> None:
    """E8: it is accepted with `--allow-shrink`."""
    (tmp_path / name).write_text(content)
    done = index("build", "--data", tmp_path / name, store=tmp_path / "s")
    assert (done.exit_code, "the source has no rows" in done.stderr) == (2, True)
    assert index("build", "--data", tmp_path / name, "--allow-shrink", store=tmp_path / "s").exit_code == 0


@pytest.mark.parametrize("command", ["build", "refresh"])
def test_E8_a_source_of_which_most_rows_are_left_out_is_not_success(tmp_path: Path, command: str) -> None:
    source = tmp_path / "u.csv"
    source.write_text("id,x\n1,1\n2,2\n")
    assert index("build", "--data", source, store=tmp_path / "s").exit_code == 0
    source.write_text("id,x\n1,1\n2,2\n,3\n,4\n,5\n")
    done = index(command, *(["--data", source] if command == "build" else []), store=tmp_path / "s")
    assert done.exit_code == 2
    assert "More than half of the rows of u were left out: 3 of 5." in done.stderr
    assert set(records(tmp_path / "s", "u")) == {"1", "2"}  # valid rows are stored


@pytest.mark.long
def test_P11_a_refresh_that_is_killed_leaves_a_trace(store: Path, users: Path, tmp_path: Path) -> None:
    """P11: also after `kill -9`, when the process itself cannot write the status."""
    slow = tmp_path / "slow.jsonl"
    slow.write_bytes(b"".join(b'{"user_id": "u%d", "email": null, "zip": null}\n' % n for n in range(300_000)))
    command = [sys.executable, "-m", "profile_enrich", "index", "refresh", "--store", str(store), "--data", str(slow)]
    with subprocess.Popen([*command, "--entity", "users"], stderr=subprocess.DEVNULL) as process:
        while len(list(store.glob("*.db"))) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        running = json.loads(index("status", store=store).stdout)
        process.kill()
    assert running["last_error"] is None
    assert running["refreshing"] is True
    killed = index("status", store=store)
    shown = json.loads(killed.stdout)
    assert (killed.exit_code, shown["failures"], shown["refreshing"]) == (1, 1, False)
    assert "it was killed" in shown["last_error"]
    assert index("refresh", store=store).exit_code == 0
    assert index("status", store=store).exit_code == 0


def test_P11_a_build_that_would_empty_a_collection_is_refused(store: Path, users: Path) -> None:
    before = records(store)
    users.write_text("user_id,email,zip\n")
    build = ("build", "--data", users, "--id", "user_id")
    assert index(*build, store=store).exit_code == 2
    assert records(store) == before
    assert index(*build, "--allow-shrink", store=store).exit_code == 0
    assert records(store) == {}


def test_a_shrink_by_rejected_rows_names_them(tmp_path: Path) -> None:
    source, store = tmp_path / "users.csv", tmp_path / "s.store"
    source.write_text("user_id,n\nu1,1\nu2,2\nu3,3\nu4,4\n")
    assert index("build", "--data", str(source), "--id", "user_id", store=store).exit_code == 0
    source.write_text("user_id,n\nu1,1\nu2,2\nu3,3\n,4\n")
    result = index("refresh", store=store)
    assert result.exit_code == 2
    assert "is unchanged. Rows were left out: " in result.stderr
    assert " (1). Is the source complete" in result.stderr


def test_vanished_and_rejects_name_the_collection(tmp_path: Path) -> None:
    source, store = tmp_path / "users.csv", tmp_path / "s.store"
    source.write_text("user_id\nu1\n")
    words = ["--data", str(source), "--id", "user_id", "--rejects", str(tmp_path / "bad.csv")]
    assert index("build", *words, store=store).exit_code == 0
    result = index("refresh", "--changed-only", "--vanished", "delete", store=store)
    assert result.exit_code == 2
    assert "users: --rejects (given now, or when it was built) and --vanished 'delete' contradict" in result.stderr
