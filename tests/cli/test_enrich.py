"""`profile-enrich enrich`: the command as users run it, also if it is killed."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from profile_enrich.cli.app import cli
from profile_enrich.cli.enrich_progress import Meter, metered
from profile_enrich.pipeline.files import FileProgress, FileReport
from profile_enrich.server import ProfileAPI
from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.testing import VendorServer, faults
from tests.cli.test_cli import on_a_terminal
from tests.server.helpers import SECRET, api, served

KEY = "secret-token:sk_live_4242424242"
PEOPLE: dict[str, dict[str, object]] = {
    f"u{n}": {"tier": "gold" if n % 5 == 0 else "silver", "ltv": n / 2, "email": f"planted{n}@example.com"}
    for n in range(60)
}


@pytest.fixture
def vendor() -> Iterator[VendorServer]:
    with VendorServer(dict(PEOPLE), entity="Users", key=KEY) as running:
        yield running


def env(vendor: VendorServer) -> dict[str, str]:
    return {
        "PROFILE_ENRICH_API_KEY": KEY,
        "PROFILE_ENRICH_BASE_URL": vendor.base_url,
        "PROFILE_ENRICH_ENTITY": "Users",
    }


def enrich(vendor: VendorServer, *arguments: str | Path, input: bytes | None = None) -> Result:
    return CliRunner(env=env(vendor)).invoke(cli, ["enrich", "--key", "user_id", *map(str, arguments)], input=input)


def start(vendor: VendorServer, *arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "profile_enrich", "enrich", "--key", "user_id", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env={**os.environ, **env(vendor)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def piped(vendor: VendorServer) -> subprocess.Popen[bytes]:
    """Run it between two pipes, with JSON lines."""
    command = [sys.executable, "-m", "profile_enrich", "enrich", "-", "--key", "user_id", "--input-format", "jsonl"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**os.environ, **env(vendor)}, stdin=pipe, stdout=pipe, stderr=pipe)


def orders(path: Path, count: int, unknown: int = 0) -> Path:
    rng = random.Random(7)
    ids = [f"u{rng.randrange(60 + unknown)}" for _ in range(count)]
    path.write_text("user_id,n\n" + "".join(f"{id},{n}\n" for n, id in enumerate(ids)))
    return path


def events(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines()]


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_E2_a_file_is_enriched_and_each_key_asked_once(vendor: VendorServer, tmp_path: Path) -> None:
    """E2: upstream calls = distinct keys."""
    source, target = orders(tmp_path / "in.csv", 500), tmp_path / "out.csv"
    done = enrich(vendor, source, "-o", target, "--fields", "tier,ltv")
    assert done.exit_code == 0, done.output
    assert vendor.call_count - 1 == 60  # one call finds the entity
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert [row["n"] for row in rows] == [str(n) for n in range(500)]
    assert all(row["profile_ltv"] == str(PEOPLE[row["user_id"]]["ltv"]) for row in rows)
    (summary,) = events(done)
    assert {name: summary[name] for name in ("event", "rows", "written", "calls", "calls_saved_percent", "dead")} == {
        "event": "summary",
        "rows": 500,
        "written": 500,
        "calls": 60,
        "calls_saved_percent": 88.0,
        "dead": 0,
    }


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("words", [["--into", "n"], ["--prefix", "", "--fields", "n"]])
def test_columns_that_are_all_there_already_are_refused(
    vendor: VendorServer, tmp_path: Path, form: str, words: list[str]
) -> None:
    source = orders(tmp_path / "in.csv", 3)
    if form == "parquet":
        pa_csv, pq = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa_csv.read_csv(source), source := tmp_path / "in.parquet")
    done = enrich(vendor, source, "-o", tmp_path / "out.csv", *words)
    assert done.exit_code == 1
    assert "column 'n' was in every record" in done.stderr
    assert f"choose another {words[0]}" in done.stderr
    assert (vendor.calls, (tmp_path / "out.csv").exists()) == ([], False)


@pytest.mark.parametrize("words", [[], ["--fields", "tier"]])
def test_an_input_without_records_cannot_be_a_parquet_file(
    vendor: VendorServer, tmp_path: Path, words: list[str]
) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "in.jsonl").write_text("")
    done = enrich(vendor, tmp_path / "in.jsonl", "-o", tmp_path / "out.parquet", *words)
    assert (done.exit_code, "has no records, and a Parquet file needs columns" in done.stderr) == (1, True)
    (tmp_path / "in.jsonl").write_text('{"user_id": "u1"}\n')
    done = enrich(vendor, tmp_path / "in.jsonl", "-o", tmp_path / "out.parquet", "--force", "--fields", "tier:strin")
    assert done.exit_code == 1
    assert "--fields: the type of 'profile_tier' must be the name of an Arrow type" in done.stderr
    assert "pyarrow" not in done.stderr


def test_a_page_of_html_is_not_the_api(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("user_id\nu1\n")
    with VendorServer(dict(PEOPLE), entity="Users", key=KEY) as page:
        page.always(faults.Respond(200, b"\n<!doctype html><title>Hello</title>"))
        done = enrich(page, tmp_path / "in.csv", "-o", tmp_path / "out.csv")
    assert done.exit_code == 1
    assert "is HTML, not JSON; is --base-url the one of this API" in done.stderr


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_run_that_added_nothing_ends_with_a_problem(vendor: VendorServer, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"user_id": "u1", "n": 1}\n{"user_id": "u2", "n": 2}\n')
    done = enrich(vendor, tmp_path / "in.jsonl", "-o", tmp_path / f"out.{suffix}", "--into", "n")
    assert done.exit_code == 2
    assert "column 'n' was there already, so nothing was added to any record" in events(done)[-1]["problems"][0]
    (tmp_path / "in.jsonl").write_text('{"user_id": "u1", "n": 1}\n{"user_id": "u2"}\n')
    some = enrich(vendor, tmp_path / "in.jsonl", "-o", tmp_path / f"o.{suffix}", "--into", "n")
    assert some.exit_code == (0 if suffix == "jsonl" else 2)  # in a CSV, all records have the column


def test_from_standard_input_to_standard_output(vendor: VendorServer, tmp_path: Path) -> None:
    line = b'{"user_id": "u5"}\n'
    done = enrich(vendor, "-", "--input-format", "jsonl", "--fields", "tier", input=line)
    assert (done.exit_code, done.stdout) == (0, '{"user_id": "u5", "profile_tier": "gold"}\n'), done.output
    done = enrich(vendor, "-", "--input-format", "csv", "--fields", "tier", input=b"user_id\nu6\n")
    assert done.stdout == "user_id,profile_tier\nu6,silver\n"
    source = orders(tmp_path / "in.csv", 2)
    assert enrich(vendor, source, "--fields", "tier").stdout.startswith("user_id,n,profile_tier\n")


@pytest.mark.long
def test_a_line_is_enriched_before_the_next_one_is_written(vendor: VendorServer) -> None:
    """A pipe whose first program writes a line occasionally."""
    with piped(vendor) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for user in ("u5", "u6", "u5"):
            running.stdin.write(b'{"user_id": "%s"}\n' % user.encode())
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["profile_tier"] == PEOPLE[user]["tier"]
        running.stdin.close()
        assert running.wait(30) == 0
    assert vendor.call_count - 1 == 2


@pytest.mark.long
def test_a_silent_input_can_be_interrupted(vendor: VendorServer) -> None:
    with piped(vendor) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b'{"user_id": "u5"}\n')
        running.stdin.flush()
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
        assert running.stderr is not None
        assert b"Fatal Python error" not in running.stderr.read()


def test_dead_letters_of_standard_output_appear_whole(vendor: VendorServer, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    for text, code, names in ((b"bad\n", 2, ["bad.jsonl"]), (b'{"user_id": "u1"}\n', 0, ["bad.jsonl"])):
        done = enrich(vendor, "-", "--input-format", "jsonl", "--dead-letter", bad, "--force", input=text)
        assert done.exit_code == code, done.output
        assert [path.name for path in tmp_path.iterdir()] == names
    bad.touch()
    done = enrich(vendor, "-", "--input-format", "jsonl", "--dead-letter", bad, input=b"{}\n")
    assert done.exit_code == 1
    assert "exists; pass --force to replace it" in done.stderr


def test_E1_codes_say_how_it_ended(vendor: VendorServer, tmp_path: Path) -> None:
    """E1: 0 success, 2 some dead letters, 1 failure, also for a wrong command line, so that 2 is unambiguous."""
    source = tmp_path / "in.jsonl"
    source.write_text('{"user_id": "u1"}\n{"user_id": 1.5}\n{"user_id": null}\n')
    target, bad = tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    done = enrich(vendor, source, "-o", target)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("Error: a key must be text, a whole number or a UUID, not float")
    done = enrich(vendor, source, "-o", target, "--force", "--dead-letter", bad, "--max-errors", "50%")
    assert done.exit_code == 2, done.output
    assert events(done)[0]["reasons"] == {"invalid_key": 1}
    assert events(done)[0]["keyless"] == 1
    for wrong in (
        ["--rate", "fast"],
        ["--max-errors", "many"],
        ["--max-errors", "100%"],
        ["--fields", "a,,b"],
        ["--no"],
    ):
        done = enrich(vendor, source, *wrong)
        assert done.exit_code == 1, done.output
        assert "Error: " in done.stderr
    assert CliRunner().invoke(cli, ["enrich", str(source)]).exit_code == 1  # no --key
    done = enrich(vendor, tmp_path / "none.csv", "--fields", "tier")
    assert (done.exit_code, done.stderr) == (1, f"Error: {tmp_path / 'none.csv'}: No such file or directory\n")


def test_refused_credentials_are_a_failure_and_not_dead_letters(tmp_path: Path) -> None:
    source = orders(tmp_path / "in.csv", 50)
    with VendorServer(dict(PEOPLE), entity="Users", key="another-key") as vendor:
        done = enrich(vendor, source, "-o", tmp_path / "out.csv", "--fields", "tier", "--dead-letter", tmp_path / "bad")
    assert done.exit_code == 1
    assert "401" in done.stderr
    assert not (tmp_path / "bad").exists()


def test_failures_of_the_source_are_dead_letters_with_their_reason(vendor: VendorServer, tmp_path: Path) -> None:
    source = orders(tmp_path / "in.csv", 100)
    vendor.always(faults.Garbage(), key="u5")
    done = enrich(vendor, source, "-o", tmp_path / "out.csv", "--fields", "tier", "--dead-letter", tmp_path / "bad")
    assert done.exit_code == 2, done.output
    letters = [json.loads(line) for line in (tmp_path / "bad").read_text().splitlines()]
    assert {(each["record"]["user_id"], each["reason"]) for each in letters} == {("u5", "source_response")}
    assert len((tmp_path / "out.csv").read_text().splitlines()) - 1 + len(letters) == 100


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "errors"),
    [(faults.Hang(), (None, "source_timeout")), (faults.Respond(429), ("source_rate_limited", "circuit_open"))],
    ids=["open calls", "refused calls"],
)
def test_an_outage_is_said_once_and_within_seconds(
    vendor: VendorServer, tmp_path: Path, fault: faults.Fault, errors: tuple[str | None, ...]
) -> None:
    """A source that is down from the start: the message names the error and no key, and the run continues later."""
    vendor.always(fault)
    arguments = [str(orders(tmp_path / "in.csv", 100)), "-o", str(tmp_path / "o.csv"), "--key", "user_id"]
    command = [sys.executable, "-m", "profile_enrich", "enrich", *arguments]
    with subprocess.Popen(
        command, env={**os.environ, **env(vendor)}, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        assert line.keys() == {"event", "seconds", "error"}
        assert line["event"] == "waiting"
        assert 3 <= line["seconds"] < 30
        assert line["error"] in errors
        vendor.heal()
        vendor.release()
        rest = [json.loads(each) for each in process.stderr]
    assert process.returncode == 0
    assert [each["event"] for each in rest if each["event"] != "progress"] == ["summary"]


def test_a_bar_says_an_outage_above_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=60, color_system=None)
    monkeypatch.setattr("profile_enrich.cli.enrich_progress.stderr_console", lambda: console)
    with metered(to_stdout=False) as meter:
        meter.waiting(3.2, "source_connection")
        meter.waiting(3.2, None)
    words = " ".join(shown.getvalue().split())
    assert "The source has not answered for 3 s (last error: source_connection; retrying)." in words
    assert "The source has not answered for 3 s (its calls are still open)." in words


@pytest.mark.parametrize(("given", "kept", "missing"), [("null", 40, None), ("drop", None, None), ("raise", None, 1)])
def test_what_becomes_of_missing_profiles(
    vendor: VendorServer, tmp_path: Path, given: str, kept: int | None, missing: int | None
) -> None:
    source = orders(tmp_path / "in.csv", 40, unknown=60)
    done = enrich(vendor, source, "-o", tmp_path / "out.jsonl", "--on-missing", given)
    assert done.exit_code == (missing or 0), done.output
    if given == "raise":
        assert "Error: in.csv, line " in done.stderr
        return
    summary = events(done)[-1]
    assert summary["missing"] > 0
    assert summary["written"] == (kept or 40 - summary["dropped"])


def test_E3_the_rate_is_kept(vendor: VendorServer, tmp_path: Path) -> None:
    """E3: 60 keys at 200 a second, 20 of them at once, take at least a fifth of a second."""
    source = orders(tmp_path / "in.csv", 300)
    began = time.monotonic()
    done = enrich(vendor, source, "-o", tmp_path / "out.csv", "--fields", "tier", "--rate", "12000/m")
    assert done.exit_code == 0, done.output
    assert time.monotonic() - began >= 0.15
    assert vendor.call_count - 1 == 60


def test_a_dry_run_asks_nothing_and_writes_nothing(vendor: VendorServer, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"user_id": "u{n % 9000}"}}\n' for n in range(9500)) + '{}\nbad\n{"user_id": 1.5}\n')
    done = enrich(vendor, source, "-o", tmp_path / "out.jsonl", "--rate", "1/s", "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.stderr == (
        "9,503 records, 9,000 different keys.\n"
        "1 cannot be read: these would be dead letters.\n"
        "1 have a key that cannot be looked up: these would be dead letters.\n"
        "1 have no key.\n"
        "9,000 calls.\n"
        "At 1 calls a second: 2 h 30 min at least.\n"
        "No lookup was made, and nothing was written.\n"
    )
    assert vendor.call_count == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    for rate, span in (("20", "7 min 30 s"), ("1000", "9.0 s")):
        assert f": {span} at least" in enrich(vendor, source, "--dry-run", "--rate", rate).stderr


def embedded(app: ProfileAPI, url: str, *arguments: str | Path) -> tuple[Result, dict[str, int]]:
    """Run the command against the embedded server, and count the server's requests by kind."""
    variables = {
        "PROFILE_ENRICH_API_KEY": SECRET,
        "PROFILE_ENRICH_BASE_URL": f"{url}/api/v1",
        "PROFILE_ENRICH_ENTITY": "Users",
    }
    before = dict(app.requests)
    done = CliRunner(env=variables).invoke(cli, ["enrich", "--key", "user_id", *map(str, arguments)])
    return done, {kind: count - before.get(kind, 0) for kind, count in app.requests.items()}


@pytest.mark.long
@pytest.mark.parametrize("target", ["out.csv", "out.jsonl", "out.parquet"])
def test_E1_batches_of_the_embedded_server_give_the_same_bytes(tmp_path: Path, target: str) -> None:
    """E1: one call per hundred keys, also under a rate limit and for standard input."""
    people = [{"user_id": f"u{n}", "tier": n % 7, "tags": ["a", n], "name": f'"é{n}'} for n in range(200)]
    build_store(tmp_path / "store", [CollectionSpec("Users", people, key="user_id")])
    source = tmp_path / "in.csv"
    source.write_text("user_id,n\n" + "".join(f"{'u' * (n % 11 > 0)}{n * n % 600},{n}\n" for n in range(2000)))
    keys = len({line.split(",")[0] for line in source.read_text().splitlines()[1:]})
    app = api(tmp_path / "store")
    fields = ["--fields", "tier,tags,name"]
    with served(app) as url:
        single, asked = embedded(app, url, source, "-o", tmp_path / f"1-{target}", *fields)
        assert (single.exit_code, asked.get("census.batch", 0), asked["census.record"]) == (0, 0, keys), single.output
        for more in ([], ["--rate", "1000/s"]):
            batch, asked = embedded(app, url, source, "-o", tmp_path / target, "--batch", "--force", *fields, *more)
            assert batch.exit_code == 0, batch.output
            assert asked["census.record"] == 0
            assert keys / 100 <= asked["census.batch"] <= keys / 100 + 5
            assert (tmp_path / target).read_bytes() == (tmp_path / f"1-{target}").read_bytes()
            one, other = (events(done)[-1] for done in (single, batch))
            assert other["calls"] == asked["census.batch"]
            for known in ("calls", "seconds", "calls_saved_percent"):
                del one[known], other[known]
            assert one == other
        counted, asked = embedded(app, url, source, "--batch", "--dry-run")
        assert f"{-(-keys // 100)} calls of up to 100 keys each." in counted.stderr
        assert not asked.get("census.batch", 0)


def test_batches_are_refused_where_there_are_none(vendor: VendorServer, tmp_path: Path) -> None:
    source = orders(tmp_path / "in.csv", 300)
    store = build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "u1"}])])
    assert store is not None
    for variables, said in (
        ({"PROFILE_ENRICH_BASE_URL": ""}, "Census's API does not support"),
        ({"PROFILE_ENRICH_SOURCE": "amperity"}, "Amperity's API does not support"),
        ({"PROFILE_ENRICH_BASE_URL": vendor.amperity_url}, "ending in /api/v1"),
        ({"PROFILE_ENRICH_SOURCE": "store", "PROFILE_ENRICH_STORE": str(tmp_path / "s")}, "a store is read many"),
        ({}, "only the embedded server has a batch endpoint"),
    ):
        runner = CliRunner(env={**env(vendor), **variables})
        done = runner.invoke(
            cli, ["enrich", str(source), "-o", str(tmp_path / "out.csv"), "--key", "user_id", "--batch"]
        )
        assert done.exit_code == 1
        assert said in done.stderr, done.stderr
        assert "batch=" not in done.stderr
    assert vendor.call_count < 10


@pytest.mark.long
def test_on_a_terminal_a_bar_and_a_summary_show(vendor: VendorServer, tmp_path: Path) -> None:
    source = orders(tmp_path / "in.csv", 400, unknown=5)
    arguments = ["enrich", str(source), "-o", str(tmp_path / "o.csv"), "--key", "user_id", "--fields", "tier"]
    code, shown = on_a_terminal([*arguments, "--rate", "200/s"], {**env(vendor), "COLUMNS": "140"})
    assert code == 0, shown
    for part in (
        "Enriching",
        "rows/s",
        "% calls saved",
        "calls/s",
        "0 errors",
        "Wrote 400 of 400 records to ",
        "Without a profile",
    ):
        assert part in shown, shown
    assert "planted" not in shown


def test_progress_tells_how_much_is_left() -> None:
    meter = Meter(None)
    now = FileProgress(1500, 1490, 3, 10, 50, 0.5, 10.0, 500)
    meter(FileProgress(500, 500, 0, 0, 0, 0.25, 0.1, 500))
    assert meter.facts(now) == {
        "rows": 1500,
        "rows_per_second": 100,
        "calls_saved_percent": 95.0,
        "calls": 50,
        "calls_per_second": 5.0,
        "missing": 3,
        "errors": 10,
        "percent": 50.0,
        "seconds_left": 20,
    }


def test_progress_is_json_where_nobody_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profile_enrich.cli.enrich_progress._EVERY", 0.0)
    Meter(None)(FileProgress(0, 0, 0, 0, 0, None, 0.0, 0))
    told = json.loads(capsys.readouterr().err)
    assert (told["event"], told["percent"], told["seconds_left"]) == ("progress", None, None)


# --- killed -----------------------------------------------------------------------------------------------------------


def rows_noted(target: Path) -> int:
    try:
        return int(
            json.loads(target.with_name(f"{target.name}.resume").read_text())["state"].get("stats", {}).get("rows", 0)
        )
    except (FileNotFoundError, ValueError):
        return 0


def wait_for(target: Path, rows: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while rows_noted(target) < rows:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)


def slow_file(folder: Path) -> Path:
    """Ten records per key, so that a rate of keys is a rate of records; some records are malformed."""
    source = folder / "in.csv"
    source.write_text(
        "user_id,n\n" + "".join(f"{f'u{n // 10}'},{n}{'' if n % 50 else ',too many'}\n" for n in range(600))
    )
    return source


SLOWLY = ["--rate", "40/s", "--checkpoint-rows", "10", "--window", "40"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "kills"),
    [
        pytest.param("out.csv", [150, 380], id="csv"),
        pytest.param("out.jsonl", [10], id="jsonl", marks=pytest.mark.long),
        pytest.param("out.parquet", [300], id="parquet", marks=pytest.mark.long),
    ],
)
def test_E1_killed_with_kill_9_and_gone_on_with_it_is_the_same_bytes(
    vendor: VendorServer, tmp_path: Path, name: str, kills: list[int]
) -> None:
    """E1: after SIGKILL at several points, no record is lost or repeated."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    source, target = slow_file(tmp_path), tmp_path / name
    whole, bad = tmp_path / f"whole-{name}", tmp_path / "bad"
    assert (
        enrich(
            vendor, source, "-o", whole, "--fields", "tier,ltv", "--dead-letter", tmp_path / "w", "--max-errors=100%"
        ).exit_code
        == 2
    )
    options: list[str | Path] = ["--fields", "tier,ltv", "--dead-letter", bad, "--max-errors", "100%"]
    for number, rows in enumerate(kills):
        with start(vendor, source, "-o", target, *options, *SLOWLY, *(["--resume"] if number else [])) as process:
            wait_for(target, rows, process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not target.exists()
    done = enrich(vendor, source, "-o", target, "--resume", *options)
    assert done.exit_code == 2, done.output
    summary = events(done)[-1]
    assert kills[-1] <= summary["resumed_at"] < 600
    assert (summary["rows"], summary["written"], summary["dead"]) == (600, 588, 12)
    assert target.read_bytes() == whole.read_bytes()
    assert bad.read_bytes() == (tmp_path / "w").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", name, f"whole-{name}", "bad", "w"}


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_E1_interrupted_it_says_how_to_go_on(vendor: VendorServer, tmp_path: Path, number: signal.Signals) -> None:
    """E1: Ctrl-C and SIGTERM write a checkpoint and end the command with 128 + the signal's number."""
    source, target = slow_file(tmp_path), tmp_path / "out.jsonl"
    options: list[str | Path] = ["--fields", "tier", "--dead-letter", tmp_path / "bad", "--max-errors", "20"]
    with start(vendor, source, "-o", target, *options, *SLOWLY) as process:
        wait_for(target, 100, process)
        process.send_signal(number)
        said = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 128 + number, said
    assert "To continue, repeat the command with --resume." in said
    assert "Traceback" not in said
    assert not target.exists()
    done = enrich(vendor, source, "-o", target, "--resume", *options)
    assert done.exit_code == 2, done.output
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [int(row["n"]) for row in rows] == [n for n in range(600) if n % 50]


MEASURED = """
import sys
from profile_enrich.cli.app import cli
try:
    cli(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.long
def test_E2_memory_is_flat(tmp_path: Path) -> None:
    """E2: ten times the records need no more memory, measured as the peak of the process."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not say what a process took")
    store = tmp_path / "people.store"
    people: list[dict[str, object]] = [{"id": id, **row} for id, row in PEOPLE.items()]
    build_store(store, [CollectionSpec("Users", people, key="id")])
    peaks: list[int] = []
    for count in (4_500, 30_000):
        source, target = tmp_path / f"{count}.csv", tmp_path / f"out{count}.csv"
        source.write_text("user_id,n,text\n" + "".join(f"u{n % 60},{n},{'x' * 600}\n" for n in range(count)))
        command = ["enrich", str(source), "-o", str(target), "--key", "user_id", "--fields", "tier"]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *command, "--store", str(store), "--entity", "Users"],
            capture_output=True,
            check=True,
        )
        peaks.append(int(done.stdout))
        assert target.read_bytes().count(b"\n") == count + 1
    assert peaks[1] < peaks[0] + 8 * 1024  # KiB; the larger file has 15 MiB more


def test_nothing_personal_and_no_secret_is_said(vendor: VendorServer, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"user_id": "u1"}\n{"user_id": "u2", "planted": }\n{"user_id": ["planted"]}\n')
    said = ""
    for more in ([], ["--dead-letter", str(tmp_path / "bad")], ["--resume"], ["--fields", "nope:planted"]):
        done = enrich(vendor, source, "-o", tmp_path / "out.jsonl", *more)
        said += done.output + done.stderr
    assert "Error" in said
    for secret in ("planted1", '"planted"', "example.com", KEY):
        assert secret not in said


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 100, 120])
def test_the_bar_fits_on_one_line(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr("profile_enrich.cli.enrich_progress.stderr_console", lambda: console)
    with metered(to_stdout=False) as meter:
        meter(FileProgress(12_345_678, 12_345_000, 3, 67_890, 50_000, 0.5, 3600.0, 0))
        assert meter._bar is not None
        shown = console.render_lines(meter._bar.get_renderable(), pad=False)
    text = "".join(segment.text for segment in shown[0])
    assert len(shown) == 1
    assert "50 %" in text
    assert "…" not in text
    assert ("12,345,678 rows" in text) == (width >= 40)


def test_a_bar_shows_the_numbers_and_the_summary_the_rest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, stderr=True)
    monkeypatch.setattr("profile_enrich.cli.enrich_progress.stderr_console", lambda: console)
    with metered(to_stdout=False) as meter:
        meter(FileProgress(100, 100, 0, 0, 0, 0.1, 0.1, 100))
        meter(FileProgress(1100, 1090, 3, 10, 50, 0.5, 61.0, 100))
    shown = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
    for part in ("1,100 rows", "16 rows/s", "95.0 % calls saved", "1 calls/s", "10 errors", "1:16 left"):
        assert part in shown, shown
    report = FileReport(
        rows=1100,
        written=1080,
        missing=3,
        keyless=2,
        dropped=5,
        dead=15,
        calls=50,
        seconds=61.0,
        resumed=100,
        reasons={"bad_input": 15},
        clashes={"profile_a": 7},
        unseen=["b"],
        problems=["no profile has the attribute 'b'"],
    )
    meter.summary(report, " to out.csv")
    assert capsys.readouterr().err.splitlines() == [
        "Wrote 1,080 of 1,100 records to out.csv.",
        "61.0 s, 16 rows/s, 50 calls, 95.0 % fewer than records.",
        "100 of them were done before.",
        "Without a profile: 3.",
        "Without a key: 2.",
        "Left out: 5.",
        "Problem: no profile has the attribute 'b'.",
        "The column profile_a was there already, and was kept, in 7 records.",
        "Dead letters, bad_input: 15.",
    ]
