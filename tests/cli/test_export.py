"""`profile-enrich export`: complete files, or files that a later run can resume."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.cli.app import cli
from profile_enrich.cli.profile_rows import ProfileRowEncoder, flat
from profile_enrich.errors import SourceResponseError
from profile_enrich.pipeline.files.resumable_output import ResumableOutput
from profile_enrich.sources.amperity import ProfileRow
from profile_enrich.sources.amperity_messages import read_page, read_profile
from profile_enrich.testing import Call, VendorServer, faults
from tests.cli.test_cli import on_a_terminal

parquet: Any = pytest.importorskip("pyarrow.parquet")
PEOPLE = {f"p{n:03}": {"tier": "gold" if n % 5 == 0 else "silver", "name": f'A, "{n}"\r\né'} for n in range(250)}
EXPECTED = [["id", "tier", "name"], *([id, *map(str, row.values())] for id, row in PEOPLE.items())]


@pytest.fixture
def vendor() -> Iterator[VendorServer]:
    with VendorServer(dict(PEOPLE), entity="loyalty") as running:
        yield running


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profile_enrich.cli.commands.export.random.uniform", lambda low, high: low)


def env(vendor: VendorServer, **more: str) -> dict[str, str]:
    return {
        "PROFILE_ENRICH_TOKEN": "secret",
        "PROFILE_ENRICH_TENANT": "acme",
        "PROFILE_ENRICH_BASE_URL": vendor.amperity_url,
        "PROFILE_ENRICH_INDEX": "loyalty",
        **more,
    }


def export(vendor: VendorServer, *arguments: str | Path) -> Result:
    return CliRunner(env=env(vendor)).invoke(cli, ["export", "--limit", "100", *map(str, arguments)])


def rows(data: bytes | Path) -> list[list[str]]:
    text = (data if isinstance(data, bytes) else data.read_bytes()).decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def pages(vendor: VendorServer) -> list[Call]:
    return [call for call in vendor.calls if call.path.endswith("/profiles")]


# --- whole exports ----------------------------------------------------------------------------------------------------


def test_an_index_becomes_a_csv_file(vendor: VendorServer, tmp_path: Path) -> None:
    """The vendor's own example: list profiles, write profiles.csv."""
    target = tmp_path / "profiles.csv"
    done = export(vendor, "-o", target, "--with-total")
    assert done.exit_code == 0, done.output
    assert rows(target) == EXPECTED
    assert done.stderr == f"Exported 250 of 250 profiles to {target}.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.csv"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert [("with_total", "true") in call.query for call in pages(vendor)] == [True, False, False]


def test_jsonl_holds_every_profile_as_it_came(vendor: VendorServer, tmp_path: Path) -> None:
    target = tmp_path / "profiles.jsonl"
    assert export(vendor, "-o", target, "--limit", "1000").exit_code == 0
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert lines == [{"id": id, "index_id": vendor.index_id, "attributes": dict(row)} for id, row in PEOPLE.items()]
    assert len(pages(vendor)) == 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text('a"{}[],:\\\r\n\u2028é\U0001f600', max_size=6)), max_size=4),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
)
def test_the_text_of_a_profile_is_its_own(
    people: list[dict[str, str]], separators: tuple[str, str], ascii_only: bool
) -> None:
    """A page is read equally with texts, and each text is the profile as it was sent."""
    data = [{"id": f"p{n}", "index_id": "i", "attributes": each} for n, each in enumerate(people)]
    answer = {"data": data, "next_token": ']}{"', "total": 7}
    body = json.dumps(answer, separators=separators, ensure_ascii=ascii_only).encode()
    plain, kept = read_page(body, read_profile), read_page(body, read_profile, keep_text=True)
    assert (plain.data, plain.next_token, plain.total) == (kept.data, kept.next_token, kept.total)
    whole = separators[1] == ":" and not re.search(rb"\\u[dD][89a-fA-F]", body)
    assert [json.loads(text) for text in kept.texts] == (data if whole else [])
    assert all(text in body.decode() and "\n" not in text for text in kept.texts)


@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize("inner", ['"a":1,"a":2', '"a" :1,"a":2', '"x\\\\":1,"a":":[","a":2', '"x":{"a":1,"a":1}'])
def test_a_name_that_occurs_twice_is_refused_with_texts_too(inner: str, space: str) -> None:
    row = f'{{"id":"p","index_id":"i","attributes":{{{inner}}}}}'
    body = f'{{"data":[{row},{row}],{space}"total":{space}2}}'.encode()
    with pytest.raises(SourceResponseError, match="a name occurs twice"):
        read_page(body, read_profile, keep_text=True)


@pytest.mark.parametrize("comma", [" ,", "\t,", ", ", " , "])
def test_white_space_between_profiles_is_part_of_none(comma: str) -> None:
    rows = comma.join(f'{{"id":"{id}","index_id":"i","attributes":{{}}}}' for id in "pqr")
    read = read_page(f'{{"data":[{rows}],"total":3}}'.encode(), read_profile, keep_text=True)
    assert [row.id for row in read.data] == ["p", "q", "r"]
    assert all(text == text.strip() for text in read.texts)


@pytest.mark.parametrize("space", ["", " ", "\t", "  "])
@pytest.mark.parametrize("second", ['{"id":"q",', '{ "id":"q",', '{"\\u0069d":"q",', '{"index_id":"j","id":"q",'])
def test_an_object_within_a_profile_is_no_profile(second: str, space: str) -> None:
    """Texts are cut at the profiles' beginnings, whatever their attributes look like."""
    lists = f'"a"{space}:{space}[1,{{"id":2}},{{"id":3}}]'
    first = f'{{"id":"p","index_id":"i","attributes":{{{lists}}}}}'
    texts = [first, second + '"x":"},{\\"id\\":","attributes":{"id":"q"},"index_id":"i"}']
    if "index_id" in second:
        texts[1] = '{"index_id":"i","id":"q","attributes":null}'
    page = read_page(f'{{"data":[{",".join(texts)}]}}'.encode(), read_profile, keep_text=True)
    assert [row.id for row in page.data] == ["p", "q"]
    assert page.texts == tuple(texts)


def test_parquet_has_a_column_for_every_attribute(vendor: VendorServer, tmp_path: Path) -> None:
    odd = {f"q{n:03}": {"name": f"é{n}", **({"late": str(n)} if n > 150 else {})} for n in range(250)}
    vendor.add_collection("odd", odd)
    for more, names in ([[], ["id", "name", "late"]], [["--columns", "late,id,nothing"], ["late", "id", "nothing"]]):
        target = tmp_path / "p.parquet"
        break_at(vendor, 3)
        assert export(vendor, "--index", "odd", "-o", target, "--retries", "0", "--force", *more).exit_code == 3
        vendor.heal()
        done = export(vendor, "--index", "odd", "-o", target, "--resume", "--force", *more)
        assert done.exit_code == (2 if "nothing" in names else 0), done.output
        whole = export(vendor, "--index", "odd", "-o", "-", "--format", "parquet", *more)
        assert whole.stdout_bytes == target.read_bytes()
        table = parquet.read_table(target)
        assert {name: str(table.schema.field(name).type) for name in table.column_names} == dict.fromkeys(
            names, "string"
        )
        assert table.column_names == names
        assert table.column("id").to_pylist() == sorted(odd)
        assert table.column("late").to_pylist()[150:152] == [None, "151"]
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "a", "é.b", "attributes.id"]), st.none() | st.text(max_size=4) | st.just([1])
        ),
        max_size=5,
    ),
    st.sampled_from([None, ["a", "id"], ["attributes.id", "nothing"]]),
)
def test_parquet_holds_the_values_of_the_profiles(people: list[dict[str, Any]], columns: list[str] | None) -> None:
    rows = [ProfileRow(f"p{n}", "i", each) for n, each in enumerate(people)]
    encoder = ProfileRowEncoder("parquet", columns)
    journal, file = io.BytesIO(encoder.page(rows, header=True)), io.BytesIO()
    encoder.write_parquet(journal, file)
    table = parquet.read_table(file)
    assert columns in (None, table.column_names)
    values = [
        {name: value if value is None or type(value) is str else "[1]" for name, value in flat(row).items()}
        for row in rows
    ]
    assert table.to_pylist() == [{name: row.get(name) for name in table.column_names} for row in values]
    assert columns is not None or {*table.column_names} == {"id"}.union(*values)


def test_parquet_has_the_narrowest_types(tmp_path: Path) -> None:
    """Columns of APIs with typed attributes."""
    values: list[dict[str, Any]] = [
        {"n": 1, "share": 2, "mixed": True, "none": None, "list": [1, "é"]},
        {"n": None, "share": 0.5, "mixed": "é", "flag": False},
    ]
    encoder = ProfileRowEncoder("parquet")
    journal = io.BytesIO(b"".join(encoder.page([ProfileRow("u", "idx", each)], header=False) for each in values))
    with (tmp_path / "p.parquet").open("wb") as file:
        encoder.write_parquet(journal, file)
    table = parquet.read_table(tmp_path / "p.parquet")
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "id": "string", "n": "int64", "share": "double", "mixed": "string", "none": "string", "list": "string",
        "flag": "bool",
    }  # fmt: skip
    assert table.column("mixed").to_pylist() == ["true", "é"]
    assert table.column("list").to_pylist() == ['[1, "é"]', None]


def test_standard_output_gets_the_data_and_nothing_else(vendor: VendorServer) -> None:
    done = export(vendor, "--filter", "tier=gold")
    assert rows(done.stdout_bytes) == [EXPECTED[0], *(row for row in EXPECTED if row[1] == "gold")]
    assert done.stderr == "Exported 50 profiles.\n"
    assert len(json.loads(export(vendor, "--format", "jsonl", "--limit", "1").stdout.splitlines()[3])) == 3


def test_filters_are_anded(vendor: VendorServer) -> None:
    name = PEOPLE["p005"]["name"]
    done = export(vendor, "--filter", "tier=gold", "--filter", f"name={name}")
    assert [row[0] for row in rows(done.stdout_bytes)[1:]] == ["p005"]


def test_an_empty_answer_is_a_file_with_a_header(vendor: VendorServer, tmp_path: Path) -> None:
    vendor.profiles.clear()
    target = tmp_path / "none.csv"
    assert export(vendor, "-o", target, "--allow-empty").exit_code == 0
    assert target.read_bytes() == b"id\r\n"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_E8_an_export_of_nothing_is_no_success(vendor: VendorServer, tmp_path: Path, form: str) -> None:
    target = tmp_path / f"none.{form}"
    done = export(vendor, "-o", target, "--filter", "tier=golf")
    assert (done.exit_code, "Problem: no profile matches --filter; if that" in done.stderr) == (2, True), done.stderr
    assert export(vendor, "-o", target, "--filter", "tier=golf", "--force", "--allow-empty").exit_code == 0
    vendor.profiles.clear()
    done = export(vendor, "-o", target, "--force")
    assert (done.exit_code, "Problem: the index has no profiles" in done.stderr) == (2, True), done.stderr


def test_one_page_is_asked_for_while_one_is_written(
    vendor: VendorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded: at most two pages are held at any time."""
    ahead: list[int] = []
    whole = ResumableOutput.write

    def write(self: ResumableOutput, data: bytes, role: str = "the output") -> None:
        whole(self, data)
        ahead.append(len(pages(vendor)) - len(ahead) - 1)

    monkeypatch.setattr(ResumableOutput, "write", write)
    assert export(vendor, "-o", tmp_path / "profiles.csv", "--limit", "50").exit_code == 0
    assert len(ahead) == 5
    assert max(ahead) <= 1


# --- columns ----------------------------------------------------------------------------------------------------------


def test_columns_that_come_later_are_left_out_and_reported(vendor: VendorServer, tmp_path: Path) -> None:
    for id in ("p200", "p201"):
        vendor.profiles[id] = {**PEOPLE[id], "vip": "yes"}
    done = export(vendor, "-o", tmp_path / "a.csv")
    assert done.exit_code == 2  # E8: the file lacks something
    assert rows(tmp_path / "a.csv")[0] == ["id", "tier", "name"]
    assert "vip (2 rows)" in done.stderr
    assert "--columns" in done.stderr
    strict = export(vendor, "-o", tmp_path / "b.csv", "--strict-columns")
    assert (strict.exit_code, "vip" in strict.stderr) == (2, True)
    assert not (tmp_path / "b.csv").exists()
    named = export(vendor, "-o", tmp_path / "c.csv", "--columns", "vip,id")
    assert named.stderr == f"Exported 250 profiles to {tmp_path}/c.csv.\n"
    got = rows(tmp_path / "c.csv")
    assert (got[0], got[1], got[201]) == (["vip", "id"], ["", "p000"], ["yes", "p200"])


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_no_profile_has_is_reported(vendor: VendorServer, tmp_path: Path, form: str) -> None:
    target = tmp_path / f"a.{form}"
    done = export(vendor, "-o", target, "--columns", "id,tire,tier")
    assert done.exit_code == 2
    assert "no profile has the attribute 'tire' of --columns" in done.stderr
    assert "'tier'" not in done.stderr
    assert target.exists()


def test_a_column_that_was_seen_before_the_interruption_is_not_reported(vendor: VendorServer, tmp_path: Path) -> None:
    vendor.add_collection("odd", {f"q{n}": {"a": "1", "b": "2"} if n < 10 else {"a": "1"} for n in range(30)})
    break_at(vendor, 3)
    odd = ["--index", "odd", "--limit", "10", "--retries", "0", "-o", str(tmp_path / "odd.csv"), "--columns", "a,b,c"]
    assert export(vendor, *odd).exit_code == 3
    vendor.heal()
    done = export(vendor, *odd, "--resume")
    assert (done.exit_code, "'c'" in done.stderr, "'b'" in done.stderr) == (2, True, False)


def test_an_attribute_called_id_does_not_hide_the_profiles_id() -> None:
    assert flat(ProfileRow("p1", "i", {"id": "p1", "a": "x"})) == {"id": "p1", "a": "x"}
    assert flat(ProfileRow("p1", "i", {"id": "other"})) == {"id": "p1", "attributes.id": "other"}


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(deadline=None)  # tolerate a busy machine
@given(st.lists(st.tuples(text, st.dictionaries(text.filter(lambda name: name != "id"), text)), max_size=6))
def test_any_text_survives_the_csv(data: list[tuple[str, dict[str, str]]]) -> None:
    encoder = ProfileRowEncoder("csv")
    table = rows(encoder.page([ProfileRow(id, "i", attributes) for id, attributes in data], header=True))
    assert table[0] == encoder.columns
    assert len(table) == len(data) + 1
    for line, (id, attributes) in zip(table[1:], data, strict=True):
        found = dict(zip(table[0], line, strict=True))
        assert found.pop("id") == id
        assert {name: value for name, value in found.items() if name in attributes} == attributes
        assert not any(value for name, value in found.items() if name not in attributes)


def test_values_that_are_not_text_are_json_and_lone_surrogates_are_escaped() -> None:
    row = ProfileRow("p", "i", {"n": 1, "none": None, "list": ["é"], "bad": "\ud800"})
    assert rows(ProfileRowEncoder("csv").page([row], header=False)) == [["p", "1", "", '["é"]', "\\ud800"]]
    assert json.loads(ProfileRowEncoder("jsonl").page([row], header=True))["attributes"]["bad"] == "\ud800"


# --- interrupted exports ----------------------------------------------------------------------------------------------


def break_at(vendor: VendorServer, page: int, fault: faults.Fault | None = None) -> None:
    healthy = [faults.Healthy()] * (page - 1)
    vendor.script(*healthy, then=fault or faults.ServerError(), match=lambda call: call.path.endswith("/profiles"))


def test_a_failed_export_says_where_it_stopped_and_goes_on_from_there(vendor: VendorServer, tmp_path: Path) -> None:
    target = tmp_path / "profiles.csv"
    break_at(vendor, 3)
    done = export(vendor, "-o", target, "--with-total", "--retries", "0")
    assert done.exit_code == 3
    assert f"Stopped after 200 of 250 profiles, which are in {target}.part" in done.stderr
    assert "--resume" in done.stderr
    assert not target.exists()
    notes = tmp_path / "profiles.csv.resume"
    assert notes.stat().st_mode & 0o777 == 0o600
    assert "secret" not in notes.read_text()

    refused = export(vendor, "-o", target)
    assert (refused.exit_code, "--resume" in refused.stderr) == (2, True)

    with (tmp_path / "profiles.csv.part").open("ab") as part:
        part.write(b"half a page that a crash cut o")
    vendor.heal()
    vendor.reset_calls()
    done = export(vendor, "-o", target, "--resume", "--with-total")
    assert done.exit_code == 0, done.output
    assert rows(target) == EXPECTED
    assert len(pages(vendor)) == 1
    assert "Exported 250 of 250 profiles" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.csv"]


def test_what_was_left_out_before_the_interruption_is_still_reported(vendor: VendorServer, tmp_path: Path) -> None:
    vendor.add_collection("odd", {f"q{n}": {"a": "1"} if n < 10 else {"a": "1", "b": "2"} for n in range(30)})
    break_at(vendor, 3)
    odd = ["--index", "odd", "--limit", "10", "--retries", "0", "-o", str(tmp_path / "odd.csv")]
    assert export(vendor, *odd).exit_code == 3
    vendor.heal()
    done = export(vendor, *odd, "--resume")
    assert "b (20 rows)" in done.stderr
    assert rows(tmp_path / "odd.csv")[0] == ["id", "a"]


def test_only_the_same_export_is_gone_on_with(vendor: VendorServer, tmp_path: Path) -> None:
    target = tmp_path / "p.csv"
    break_at(vendor, 2)
    assert export(vendor, "-o", target, "--resume", "--retries", "0").exit_code == 3  # no file to resume: it starts one
    vendor.heal()
    other = export(vendor, "-o", target, "--resume", "--filter", "name=ada@example.com")
    assert (other.exit_code, "(filters changed)" in other.stderr) == (2, True)
    assert "ada@example.com" not in other.output + (tmp_path / "p.csv.resume").read_text()
    notes = tmp_path / "p.csv.resume"
    good = json.loads(notes.read_text())
    for bad in ("", "[]", "{}", json.dumps({**good, "version": 9}), json.dumps({**good, "state": 1})):
        notes.write_text(bad)
        done = export(vendor, "-o", target, "--resume")
        assert (done.exit_code, "is damaged or of another version" in done.stderr) == (2, True), bad
    assert export(vendor, "-o", target, "--force").exit_code == 0
    assert rows(target) == EXPECTED
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_a_page_token_that_the_api_no_longer_takes_is_a_clear_error(vendor: VendorServer, tmp_path: Path) -> None:
    target = tmp_path / "p.csv"
    break_at(vendor, 2)
    export(vendor, "-o", target, "--retries", "0")
    vendor.heal()
    vendor.always(faults.Respond(400, {"status": 400, "message": "next_token is not valid here."}), match="/profiles")
    done = export(vendor, "-o", target, "--resume")
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_a_file_that_is_there_is_replaced_only_when_told(vendor: VendorServer, tmp_path: Path) -> None:
    target = tmp_path / "p.csv"
    target.write_text("precious")
    done = export(vendor, "-o", target)
    assert (done.exit_code, "--force" in done.stderr, target.read_text()) == (2, True, "precious")
    break_at(vendor, 2)
    assert export(vendor, "-o", target, "--force", "--retries", "0").exit_code == 3
    assert target.read_text() == "precious"  # until the new file is complete
    vendor.heal()
    assert export(vendor, "-o", target, "--resume").exit_code == 0  # the run that it resumes was allowed to replace it
    assert export(vendor, "-o", target, "--resume").exit_code == 2
    assert rows(target) == EXPECTED


def test_when_nothing_was_written_nothing_is_left(vendor: VendorServer, tmp_path: Path) -> None:
    vendor.always(faults.ServerError())
    done = export(vendor, "-o", tmp_path / "p.csv", "--retries", "0")
    assert (done.exit_code, "before the first page" in done.stderr) == (3, True)
    assert list(tmp_path.iterdir()) == []
    done = export(vendor, "--retries", "0")
    assert "Stopped after 0 profiles" in done.stderr


@pytest.mark.long
def test_trouble_that_passes_is_waited_out(vendor: VendorServer, tmp_path: Path) -> None:
    listing = "/profiles"
    vendor.script(faults.RateLimited(0), faults.Healthy(), faults.Reset(), faults.Unavailable(), match=listing)
    assert export(vendor, "-o", tmp_path / "p.csv").exit_code == 0
    assert rows(tmp_path / "p.csv") == EXPECTED
    vendor.script(faults.RateLimited(1), match=listing)
    began = time.monotonic()
    assert export(vendor, "--limit", "1000").exit_code == 0
    assert time.monotonic() - began >= 1
    vendor.always(faults.Unavailable(), match=listing)
    vendor.reset_calls()
    assert export(vendor, "--retries", "2").exit_code == 3
    assert len(pages(vendor)) == 3
    vendor.always(faults.Unauthorized(), match=listing)
    vendor.reset_calls()
    assert export(vendor).exit_code == 2  # which waiting does not resolve
    assert len(pages(vendor)) <= 2


def test_an_api_that_goes_round_in_circles_is_stopped(vendor: VendorServer) -> None:
    page = {"data": [{"id": "p", "index_id": vendor.index_id, "attributes": {}}], "next_token": "again"}
    vendor.always(faults.Respond(200, page), match="/profiles")
    done = export(vendor)
    assert (done.exit_code, "same page token" in done.stderr) == (3, True)


def test_usage_errors(vendor: VendorServer, tmp_path: Path) -> None:
    for arguments, named in [
        (["--resume"], "-o FILE"),
        (["--filter", "no-equals-ada@example.com"], "NAME=VALUE"),
        (["--filter", "=x"], "NAME=VALUE"),
        (["--filter", "a=1", "--filter", "a=2"], "twice"),
        (["--columns", "a,a"], "--columns"),
        (["--columns", ","], "--columns"),
        (["--source", "store"], "index"),
        (["--limit", "0"], "--limit"),
        (["--index", "elsewhere"], "elsewhere"),
        (["-o", str(tmp_path / "no" / "such" / "place.csv")], "does not exist; create it first"),
    ]:
        done = export(vendor, *arguments)
        assert done.exit_code == 2, arguments
        assert named in done.stderr, arguments
        assert "ada@example.com" not in done.output


def test_a_full_disk_leaves_what_can_be_gone_on_with(
    vendor: VendorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ResumableOutput.write

    def write(self: ResumableOutput, data: bytes, role: str = "the output") -> None:
        if self.size:
            raise OSError(28, "No space left on device", str(self.part))
        whole(self, data)

    monkeypatch.setattr(ResumableOutput, "write", write)
    done = export(vendor, "-o", tmp_path / "p.csv")
    assert (done.exit_code, "p.csv.part: No space left" in done.stderr, "after 100 profiles" in done.stderr) == (
        2,
        True,
        True,
    )
    monkeypatch.setattr(ResumableOutput, "write", whole)
    assert export(vendor, "-o", tmp_path / "p.csv", "--resume").exit_code == 0
    assert rows(tmp_path / "p.csv") == EXPECTED


def test_E7_two_exports_do_not_write_one_file(vendor: VendorServer, tmp_path: Path) -> None:
    target = tmp_path / "p.csv"
    refused: list[Result] = []

    def look(call: Call) -> bool:
        if call.path.endswith("/profiles") and not refused:
            done = [export(vendor, "-o", target, *extra) for extra in ([], ["--force"], ["--resume", "--force"])]
            refused.extend(done)
        return False

    with ThreadPoolExecutor() as pool:
        vendor.always(faults.Healthy(), match=lambda call: bool(pool.submit(look, call).result(20)))
        assert export(vendor, "-o", target).exit_code == 0
    assert [done.exit_code for done in refused] == [2] * 3
    assert all("another run writes" in done.stderr for done in refused)
    assert rows(target) == EXPECTED


def test_a_dash_is_standard_output(vendor: VendorServer) -> None:
    assert rows(export(vendor, "-o", "-").stdout_bytes) == EXPECTED
    assert not Path("-").exists()


# --- as a process -----------------------------------------------------------------------------------------------------


def process(vendor: VendorServer, target: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "profile_enrich", "export", "-o", str(target), "--with-total", "--limit", "100"],
        env={**os.environ, **env(vendor)},
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long), (signal.SIGKILL, -9)],
)
def test_E1_interrupted_killed_and_gone_on_with_nothing_is_lost_or_doubled(
    vendor: VendorServer, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """E1: no record is lost or repeated, also after `kill -9` and `--resume`."""
    target = tmp_path / "p.csv"
    break_at(vendor, 3, faults.Hang())
    with process(vendor, target) as running:
        vendor.wait_for_calls(4, timeout=60)  # one request for the index's name, and three pages
        running.send_signal(number)
        _, said = running.communicate(timeout=20)
    assert running.returncode == code, said
    if number is not signal.SIGKILL:
        assert "Stopped after 200 of 250 profiles" in said
        assert "Traceback" not in said
    assert not target.exists()
    vendor.heal()
    vendor.release()
    assert export(vendor, "-o", target, "--with-total", "--resume").exit_code == 0
    assert rows(target) == EXPECTED


@pytest.mark.long
def test_a_reader_that_has_enough_ends_it_quietly(vendor: VendorServer) -> None:
    command = f"'{sys.executable}' -m profile_enrich export --limit 5 | head -n 2"
    done = subprocess.run(["bash", "-c", command], env={**os.environ, **env(vendor)}, capture_output=True, text=True)
    assert done.stdout.startswith("id,tier,name\n")
    assert done.stdout.count("\n") == 2
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_on_a_terminal_there_is_a_progress_bar(vendor: VendorServer, tmp_path: Path) -> None:
    vendor.always(faults.Latency(0.15), match="/profiles")
    arguments = ["export", "-o", str(tmp_path / "p.csv"), "--with-total", "--limit", "100"]
    code, shown = on_a_terminal(arguments, env(vendor))
    assert code == 0
    assert "Exporting" in shown
    assert "100/250" in shown
    assert "rows/s" in shown
    assert "Exported 250 of 250 profiles" in shown
