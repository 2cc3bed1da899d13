"""`MemorySource`: profiles from a mapping or a function."""

from __future__ import annotations

from typing import Any

import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import ConfigurationError, SourceUnavailable
from profile_enrich.profile import ProfileKey
from profile_enrich.sources.base import Excluded, Found, NotFound, ProfileSource, SourceResult
from profile_enrich.sources.memory import MemorySource


async def ask(source: MemorySource, value: str, type: str = "id") -> SourceResult:
    return await source.fetch(ProfileKey(value, type), deadline=Deadline(1))


async def test_it_answers_from_the_mapping_as_it_is_now() -> None:
    profiles: dict[Any, dict[str, Any]] = {"u1": {"tier": "gold"}, ("email", "a@b.example"): {"tier": "silver"}}
    source = MemorySource(profiles)
    found = await ask(source, "u1")
    assert isinstance(found, Found)
    assert (dict(found.record.attributes), found.record.id, found.record.source) == ({"tier": "gold"}, "u1", "memory")
    by_email = await ask(source, "a@b.example", "email")
    assert isinstance(by_email, Found)
    assert by_email.record.attributes["tier"] == "silver"
    assert await ask(source, "u1", "email") == NotFound()
    assert await ask(source, "u2") == NotFound()
    profiles["u2"] = {}
    assert isinstance(await ask(source, "u2"), Found)
    assert source.calls == 5


async def test_a_function_answers() -> None:
    def load(key: ProfileKey) -> dict[str, str] | None:
        return {"type": key.type} if key.value == "u1" else None

    source = MemorySource(load, name="mine")
    found = await ask(source, "u1", "phone")
    assert isinstance(found, Found)
    assert found.record.attributes["type"] == "phone"
    assert found.record.source == "mine"
    assert await ask(source, "u2") == NotFound()


async def test_an_asynchronous_function_answers_with_any_result_or_error() -> None:
    async def load(key: ProfileKey) -> SourceResult:
        if key.value == "down":
            raise SourceUnavailable("it is down")
        return Excluded()

    source = MemorySource(load)
    assert await ask(source, "u1") == Excluded()
    with pytest.raises(SourceUnavailable):
        await ask(source, "down")
    assert source.calls == 2


async def test_a_function_that_answers_nonsense_is_named() -> None:
    with pytest.raises(ConfigurationError, match="returned str"):
        await ask(MemorySource(lambda key: "planted"), "u1")  # type: ignore[arg-type,return-value]  # on purpose


@pytest.mark.parametrize("arguments", [{"profiles": 5}, {"profiles": ["u1"]}, {"name": ""}, {"name": 5}])
def test_wrong_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        MemorySource(**arguments)


async def test_it_is_a_source_and_shows_nothing() -> None:
    source = MemorySource({"planted": {"a": 1}}, name="mine")
    assert isinstance(source, ProfileSource)
    assert (source.name, source.namespace) == ("mine", "memory|mine")
    assert repr(source) == "<MemorySource 'mine', 1 profiles>"
    assert repr(MemorySource(lambda key: None)) == "<MemorySource 'memory', a function>"
    assert await ask(MemorySource(), "u1") == NotFound()
    await source.aclose()
