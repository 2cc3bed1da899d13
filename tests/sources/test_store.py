"""The local store as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profile_enrich._utils.deadline import Deadline
from profile_enrich.errors import AmbiguousMatch, ConfigurationError, InvalidKeyError, SourceUnavailable, StoreError
from profile_enrich.profile import ProfileKey
from profile_enrich.sources.base import Found, NotFound, ProfileSource
from profile_enrich.sources.store import StoreSource
from profile_enrich.store import CollectionSpec, LocalStore, build_store

ROWS: list[dict[str, Any]] = [
    {"id": "1", "email": "a@x.example", "tier": "gold", "nested": {"a": [1]}},
    {"id": "2", "email": "b@x.example", "tier": "gold"},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build_store(tmp_path / "s", [CollectionSpec("Users", ROWS, filterable=["email", "tier"])])
    return tmp_path / "s"


def soon() -> Deadline:
    return Deadline(1.0)


async def test_by_primary_key(path: Path) -> None:
    source = StoreSource(path, collection="Users")
    assert isinstance(source, ProfileSource)
    found = await source.fetch(ProfileKey("1"), deadline=soon())
    assert isinstance(found, Found)
    assert found.record.id == "1"
    assert found.record.source == source.name == "store"
    assert found.record.attributes["nested"]["a"] == [1]
    assert await source.fetch(ProfileKey("3"), deadline=soon()) == NotFound()
    await source.aclose()
    assert isinstance(await source.fetch(ProfileKey("2"), deadline=soon()), Found)  # reopens it
    await source.aclose()


async def test_by_attribute(path: Path) -> None:
    with LocalStore(path) as store:
        source = StoreSource(store, collection=1)
        found = await source.fetch(ProfileKey("b@x.example", "email"), deadline=soon())
        assert isinstance(found, Found)
        assert found.record.id == "2"
        assert await source.fetch(ProfileKey("B@x.example", "email"), deadline=soon()) == NotFound()
        with pytest.raises(AmbiguousMatch, match="more than one record of 'Users' has this tier") as caught:
            await source.fetch(ProfileKey("gold", "tier"), deadline=soon())
        assert "gold" not in str(caught.value)
        first = StoreSource(store, collection=store.collection("Users").index_id, on_multiple="first")
        found = await first.fetch(ProfileKey("gold", "tier"), deadline=soon())
        assert isinstance(found, Found)
        assert found.record.id == "1"
        with pytest.raises(InvalidKeyError, match="it has: id, email, tier"):
            await source.fetch(ProfileKey("x", "phone"), deadline=soon())
        await source.aclose()
        assert store.get("Users", "1") is not None  # the source does not own it


async def test_namespace_separates_stores_and_collections(path: Path, tmp_path: Path) -> None:
    build_store(path, [CollectionSpec("Other", ROWS)])
    build_store(tmp_path / "t", [CollectionSpec("Users", ROWS)])
    spaces = {
        StoreSource(path, collection="Users").namespace,
        StoreSource(path, collection="Other").namespace,
        StoreSource(tmp_path / "t", collection="Users").namespace,
    }
    assert len(spaces) == 3
    assert StoreSource(path, collection="Users").collection.rows == 2
    assert "collection 1" in repr(StoreSource(path, collection="Users"))


async def test_bad_arguments(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no collection"):
        StoreSource(path, collection="Nobody")
    with pytest.raises(StoreError, match="no store"):
        StoreSource(tmp_path / "nothing", collection="Users")
    with pytest.raises(ConfigurationError, match="on_multiple"):
        StoreSource(path, collection="Users", on_multiple="last")  # type: ignore[arg-type]  # what is tested


async def test_a_store_that_fails_is_unavailable(path: Path) -> None:
    source = StoreSource(path, collection="Users")
    for file in path.glob("*.db"):
        file.unlink()
    with pytest.raises(SourceUnavailable, match="data file is missing") as caught:
        await source.fetch(ProfileKey("1"), deadline=soon())
    assert caught.value.__context__ is None


async def test_a_record_that_is_too_deep(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(80):
        deep = [deep]
    build_store(tmp_path / "s", [CollectionSpec("Users", [{"id": "1", "deep": deep}])])
    source = StoreSource(tmp_path / "s", collection="Users")
    with pytest.raises(SourceUnavailable, match="nested too deeply") as caught:
        await source.fetch(ProfileKey("1"), deadline=soon())
    assert caught.value.__context__ is None
    await source.aclose()
