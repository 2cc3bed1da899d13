"""The custom source of the page about sources passes the conformance tests of sources."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from profile_enrich import ProfileEnrichError, ProfileSource

from ..sources import test_sources_conformance as suite
from .helpers import code_of


@pytest.fixture(scope="module")
def source_of_the_page() -> Any:
    return code_of("sources.md")["TableSource"]


@pytest.fixture
def world(source_of_the_page: Any, tmp_path: Path) -> suite.World:
    database = sqlite3.connect(tmp_path / "people.db")
    database.execute("CREATE TABLE person (id TEXT PRIMARY KEY, attributes TEXT)")
    rows = [(id, json.dumps(attributes)) for id, attributes in suite.profiles().items()]
    database.executemany("INSERT INTO person VALUES (?, ?)", rows)
    database.commit()
    database.close()

    def another() -> ProfileSource:
        source: ProfileSource = source_of_the_page(str(tmp_path / "another.db"))
        return source

    return suite.World(source_of_the_page(str(tmp_path / "people.db")), another)


async def test_it_passes_the_conformance_suite(world: suite.World) -> None:
    await suite.test_it_follows_the_protocol(world)
    await suite.test_a_record_is_found_and_frozen(world)
    await suite.test_a_missing_record_is_not_found(world)
    await suite.test_any_identifier_arrives_as_it_is_or_is_refused_before_a_call(world)
    await suite.test_a_type_that_the_source_has_not_is_refused_before_a_call(world)
    await suite.test_L9_many_at_once_get_each_their_own(world)
    await suite.test_L14_closing_frees_and_the_source_can_be_used_again(world)
    assert world.source.namespace != world.another().namespace


async def test_A18_nothing_that_it_emits_holds_a_person(
    world: suite.World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    await suite.test_A18_nothing_that_is_emitted_holds_a_person_or_a_secret(world, caplog, capfd)


async def test_a_table_that_cannot_be_read_is_unavailable_without_context(world: suite.World) -> None:
    broken = suite.World(world.another(), world.another)
    with pytest.raises(ProfileEnrichError) as caught:
        await broken.ask(suite.PERSON)
    assert caught.value.code == "source_unavailable"
    assert caught.value.__context__ is None
