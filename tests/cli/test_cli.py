"""The commands `lookup`, `entities` and `indexes`: options, exit codes, and secrets that are never printed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from profile_enrich.cli.app import cli
from profile_enrich.cli.output import clean, print_mapping, print_table
from profile_enrich.cli.source_options import Settings
from profile_enrich.errors import ConfigurationError
from profile_enrich.store import CollectionSpec, build_store
from profile_enrich.testing import VendorServer, faults

KEY = "secret-token:sk_live_4242424242"


@pytest.fixture
def vendor() -> Iterator[VendorServer]:
    people: dict[str, dict[str, object]] = {
        "u1": {"first_name": "Ada", "email": "ada@example.com", "tags": ["a", "b"]},
        "u2": {"first_name": "Bob"},
    }
    with VendorServer(people, entity="Users", key=KEY) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "profiles.store"
    rows: list[dict[str, object]] = [
        {"id": "h1", "tier": "gold", "visits": 3},
        {"id": "h2", "tier": "silver", "visits": None},
    ]
    build_store(path, [CollectionSpec("Households", rows, key="id", filterable=["tier"])])
    return path


def census(vendor: VendorServer, **more: str) -> dict[str, str]:
    return {
        "PROFILE_ENRICH_API_KEY": KEY,
        "PROFILE_ENRICH_BASE_URL": vendor.base_url,
        "PROFILE_ENRICH_ENTITY": "Users",
        **more,
    }


def amperity(vendor: VendorServer, **more: str) -> dict[str, str]:
    return {
        "PROFILE_ENRICH_TOKEN": KEY,
        "PROFILE_ENRICH_TENANT": "acme",
        "PROFILE_ENRICH_BASE_URL": vendor.amperity_url,
        "PROFILE_ENRICH_INDEX": "Users",
        **more,
    }


def invoke(arguments: list[str], env: dict[str, str] | None = None, input: str | None = None) -> Result:
    return CliRunner(env=env).invoke(cli, arguments, input=input)


# --- lookup -----------------------------------------------------------------------------------------------------------


def test_lookup_prints_json_when_piped(vendor: VendorServer) -> None:
    done = invoke(["lookup", "u1"], census(vendor))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"id": "u1", "first_name": "Ada", "email": "ada@example.com", "tags": ["a", "b"]}
    assert done.stderr == ""


def test_lookup_asks_amperity_by_id_and_by_attribute(vendor: VendorServer) -> None:
    by_id = invoke(["lookup", "u2", "--json"], amperity(vendor))
    by_email = invoke(["lookup", "ada@example.com", "--type", "email"], amperity(vendor))
    assert json.loads(by_id.stdout) == {"first_name": "Bob"}
    assert json.loads(by_email.stdout)["first_name"] == "Ada"


def test_lookup_takes_options_in_place_of_variables(vendor: VendorServer) -> None:
    options = ["--source", "census", "--api-key", KEY, "--base-url", vendor.base_url, "--entity", "1"]
    for transport in ("auto", "httpx", "httpx2", "aiohttp"):
        assert invoke(["lookup", "u1", *options, "--transport", transport]).exit_code == 0


def test_lookup_gets_its_own_tokens(vendor: VendorServer) -> None:
    env = amperity(
        vendor,
        PROFILE_ENRICH_TOKEN="",
        PROFILE_ENRICH_CLIENT_ID="client",
        PROFILE_ENRICH_CLIENT_SECRET="client-secret",
        PROFILE_ENRICH_TOKEN_URL=vendor.token_url,
    )
    assert invoke(["lookup", "u1"], env).exit_code == 0
    assert vendor.tokens_issued == 1
    wrong = invoke(["lookup", "u1"], {**env, "PROFILE_ENRICH_CLIENT_SECRET": "not-the-secret"})
    assert wrong.exit_code == 2
    assert "not-the-secret" not in wrong.output


def test_lookup_reads_the_key_from_standard_input(vendor: VendorServer) -> None:
    done = invoke(["lookup", "-"], census(vendor), input="u1\n")
    assert json.loads(done.stdout)["first_name"] == "Ada"


def test_lookup_says_when_there_is_no_such_profile(vendor: VendorServer) -> None:
    done = invoke(["lookup", "somebody-else"], census(vendor))
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "There is no such profile.\n")


def test_lookup_in_a_store_needs_no_network(store: Path) -> None:
    done = invoke(["lookup", "h1", "--store", str(store), "--entity", "Households"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["visits"] == 3
    assert invoke(["lookup", "h9", "--store", str(store), "--entity", "Households"]).exit_code == 1
    assert "--entity" in invoke(["lookup", "h1", "--store", str(store)]).stderr
    assert "PROFILE_ENRICH_STORE" in invoke(["lookup", "h1", "--source", "store"]).stderr


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faults.Unavailable(), 3),
        (faults.RateLimited(), 3),
        (faults.Reset(), 3),
        (faults.Hang(), 3),
        (faults.Garbage(), 3),
        (faults.Unauthorized(), 2),
        (faults.Respond(400), 2),
    ],
)
def test_lookup_has_an_exit_code_for_each_kind_of_failure(vendor: VendorServer, fault: faults.Fault, code: int) -> None:
    vendor.always(fault, match="/record")
    done = invoke(["lookup", "ada@example.com", "--timeout", "0.3"], census(vendor))
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    for private in (KEY, "sk_live", "ada@example.com"):
        assert private not in done.output


def test_usage_errors_have_exit_code_2_and_name_the_option(vendor: VendorServer) -> None:
    env = census(vendor)
    for arguments, named in [
        (["lookup"], "KEY"),
        (["lookup", ""], "must not be empty"),
        (["lookup", "u1", "--type", "email"], "id"),
        (["lookup", "u1", "--timeout", "0"], "--timeout"),
        (["lookup", "u1", "--base-url", "ftp://x"], "--base-url"),
        (["lookup", "u1", "--entity", "Nobodies"], "Nobodies"),
        (["lookup", "u1", "--source", "amperity"], "--tenant"),
        (["lookup", "u1", "--source", "amperity", "--tenant", "t"], "--index"),
        (["lookup", "u1", "--source", "amperity", "--tenant", "t", "--index", "i", "--client-id", "c"], "--token-url"),
        (["lookup", "u1", "--tenant", "t"], "--source"),
    ]:
        done = invoke(arguments, env)
        assert done.exit_code == 2, arguments
        assert named in done.stderr, arguments
        assert KEY not in done.output
    assert "PROFILE_ENRICH_API_KEY" in invoke(["lookup", "u1"]).stderr
    assert "--token" in invoke(["lookup", "u1", "--source", "amperity", "--tenant", "t", "--index", "i"]).stderr
    assert "region" in invoke(["lookup", "u1", "--api-key", KEY, "--entity", "e", "--region", "mars"]).stderr
    assert "PROFILE_ENRICH_ENTITY" in invoke(["lookup", "u1", "--api-key", KEY]).stderr


def test_the_source_is_told_by_the_other_options() -> None:
    assert Settings().kind() == "census"
    assert Settings().kind("amperity", "store") == "amperity"
    assert Settings(tenant="t").kind() == "amperity"
    assert Settings(store=Path("x")).kind() == "store"
    assert Settings(source="store", tenant="t").kind() == "store"
    assert Settings(api_key="k", tenant="t").kind("amperity", "store") == "amperity"
    assert Settings(api_key="k").kind("amperity", "store") == "census"  # which the command then refuses with the reason
    with pytest.raises(ConfigurationError, match="census and amperity"):
        Settings(api_key="k", tenant="t").kind()
    assert "k9" not in repr(Settings(api_key="k9", token="k9", client_secret="k9"))


# --- entities, indexes ------------------------------------------------------------------------------------------------


def test_entities_and_indexes_as_json(vendor: VendorServer, store: Path) -> None:
    assert json.loads(invoke(["entities"], census(vendor)).stdout) == [{"id": 1, "name": "Users", "library_id": 1}]
    [index] = json.loads(invoke(["indexes"], amperity(vendor)).stdout)
    assert (index["id"], index["name"]) == (vendor.index_id, "Users")
    [entity] = json.loads(invoke(["entities", "--store", str(store)]).stdout)
    assert (entity["name"], entity["key"], entity["rows"]) == ("Households", "id", 2)
    [index] = json.loads(invoke(["indexes", "--store", str(store)]).stdout)
    assert (index["name"], index["filterable"]) == ("Households", ["tier"])


def test_entities_of_amperity_and_indexes_of_census_are_refused_with_the_other_command(vendor: VendorServer) -> None:
    wrong = invoke(["entities"], amperity(vendor))
    assert (wrong.exit_code, "profile-enrich indexes" in wrong.stderr) == (2, True)
    wrong = invoke(["indexes"], census(vendor))
    assert (wrong.exit_code, "profile-enrich entities" in wrong.stderr) == (2, True)


def test_a_key_that_sees_nothing_is_told_so(vendor: VendorServer) -> None:
    vendor.always(faults.Respond(200, {"data": []}))
    done = invoke(["entities"], census(vendor))
    assert (done.exit_code, json.loads(done.stdout), done.stderr) == (0, [], "The key sees no entities.\n")


# --- a terminal -------------------------------------------------------------------------------------------------------


def on_a_terminal(arguments: list[str], env: dict[str, str], *, until: bytes | None = None) -> tuple[int, str]:
    """Runs the command with a pseudo-terminal as its output; ends it by SIGTERM when it has shown `until`."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "profile_enrich", *arguments],
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm", **env},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
                if until is not None and until in shown:
                    process.terminate()
                    until = None
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        code = process.wait(20)
    return code, shown.decode()


@pytest.mark.long
def test_on_a_terminal_a_profile_is_a_table(vendor: VendorServer) -> None:
    vendor.profiles["u3"] = {"name": "Zoë\x1b]0;owned\x07\nline", "note": "[bold]x[/bold]", "none": None}
    code, shown = on_a_terminal(["lookup", "u3"], census(vendor))
    assert code == 0
    assert "attribute" in shown
    assert "Zoë\\x1b]0;owned\\x07\\nline" in shown  # escaped, not interpreted
    assert "[bold]x[/bold]" in shown
    assert "{" not in shown
    code, shown = on_a_terminal(["entities"], census(vendor))
    assert (code, "library_id" in shown, "Users" in shown) == (0, True, True)


def test_tables_show_every_kind_of_value(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [["x\ty", None], [{"n": 1}, True]])
    print_mapping({"name": "Ada"}, title="census, profile u1")
    shown = capsys.readouterr().out
    for text in ("x\\ty", '{"n": 1}', "true", "Ada", "census, profile u1"):
        assert text in shown
    assert clean("é\u202e\ud800 \u3000") == "é\\u202e\\ud800 \u3000"


# --- as a program -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_without_the_extra_it_says_what_to_install() -> None:
    for missing in ("click", "rich"):
        code = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['doctor']\n"
        code += "from profile_enrich.__main__ import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 2
        assert "pip install 'profile-enrich[cli]'" in done.stderr
        assert missing in done.stderr
        assert "Traceback" not in done.stderr


def test_another_missing_module_is_not_blamed_on_the_extra() -> None:
    code = "import sys; sys.modules['starlette'] = None\nfrom profile_enrich.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "profile-enrich[cli]" not in done.stderr


def test_version_and_help_of_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "profile_enrich", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("profile-enrich, version ")
    for name in ("serve", "lookup", "entities", "indexes", "export", "doctor"):
        shown = invoke([name, "-h"], {"PROFILE_ENRICH_API_KEY": KEY})
        assert shown.exit_code == 0
        assert "PROFILE_ENRICH_" in shown.output
        assert KEY not in shown.output


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands(each, (*path, name))


@pytest.mark.parametrize("path", [*commands(cli)], ids=" ".join)
def test_help_fits_80_columns(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*path, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert [line for line in shown.output.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(("name", "first"), [("enrich", ["-o, --output", "--key"]), ("export", ["-o, --output"])])
def test_help_lists_what_is_always_needed_first(name: str, first: list[str]) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"], terminal_width=80).output.partition("Options:\n")[2]
    options = re.findall(r"^  (-[^A-Z\n]*?) +(?:[A-Z\[]|$)", shown, re.MULTILINE)
    assert options[: len(first)] == first


@pytest.mark.long
def test_what_the_vendor_announces_is_shown_but_not_what_operators_read_in_logs(vendor: VendorServer) -> None:
    vendor.headers["Deprecation"] = "@1767225599"
    env = {**os.environ, **census(vendor)}
    done = subprocess.run(
        [sys.executable, "-m", "profile_enrich", "lookup", "u1"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "announces that this version of its API will end" in done.stderr
    vendor.always(faults.Unavailable(), match="/record")
    done = subprocess.run(
        [sys.executable, "-m", "profile_enrich", "lookup", "u1"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert "pages go on" not in done.stderr


def test_input_and_output_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, vendor: VendorServer) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere/file")

    monkeypatch.setattr("profile_enrich.cli.commands.lookup.print_json", full)
    done = invoke(["lookup", "u1"], census(vendor))
    assert (done.exit_code, done.stderr) == (2, "Error: /somewhere/file: No space left on device\n")
