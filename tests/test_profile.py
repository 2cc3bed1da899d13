"""Keys, records and profiles."""

from __future__ import annotations

import copy
import json
import pickle
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich import InvalidKeyError, Profile, ProfileKey, Reason, Record, Status
from profile_enrich._utils.freeze import MAX_DEPTH, freeze, thaw
from profile_enrich.profile import MAX_KEY_BYTES

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class TestProfileKey:
    def test_is_its_type_and_value(self) -> None:
        assert ProfileKey("a") == ProfileKey("a", "id")
        assert ProfileKey("a", "email") != ProfileKey("a")
        assert ProfileKey("a") != "a"
        assert len({ProfileKey("a"), ProfileKey("a"), ProfileKey("a", "email")}) == 2
        assert ProfileKey.of("a") == ProfileKey("a")
        key = ProfileKey("a")
        assert ProfileKey.of(key) is key

    @pytest.mark.parametrize("value", [None, 7, 1.5, b"a", True, ["a"], object()])
    def test_refuses_what_is_not_text(self, value: Any) -> None:
        with pytest.raises(InvalidKeyError, match="must be a string"):
            ProfileKey(value)

    def test_takes_a_uuid_as_its_text(self) -> None:
        value = uuid.uuid4()
        assert ProfileKey(value) == ProfileKey.of(value) == ProfileKey(str(value))

    def test_refuses_an_empty_value_and_an_empty_type(self) -> None:
        with pytest.raises(InvalidKeyError, match="must not be empty"):
            ProfileKey("")

    @pytest.mark.parametrize("type_", ["", None, 5, "x" * 257, "\ud800", "line\nbreak"])
    def test_refuses_a_type_that_is_no_name(self, type_: Any) -> None:
        with pytest.raises(InvalidKeyError, match="type of a profile key"):
            ProfileKey("a", type_)

    def test_is_bounded_in_bytes(self) -> None:
        assert ProfileKey("x" * MAX_KEY_BYTES).value == "x" * MAX_KEY_BYTES
        for value in ("x" * (MAX_KEY_BYTES + 1), "é" * (MAX_KEY_BYTES // 2 + 1), "x" * 4096):
            with pytest.raises(InvalidKeyError, match="at most"):
                ProfileKey(value)

    def test_refuses_lone_surrogates_without_quoting_them(self) -> None:
        with pytest.raises(InvalidKeyError, match="lone surrogate") as raised:
            ProfileKey("alice\ud800")
        assert raised.value.__context__ is None

    def test_A18_its_repr_shows_a_hash_only(self) -> None:
        """A18: ids appear hashed."""
        key = ProfileKey("alice@example.com", "email")
        assert "alice" not in repr(key)
        assert key.digest() in repr(key)
        assert key.digest() == ProfileKey("alice@example.com", "email").digest()
        assert key.digest() != ProfileKey("alice@example.com").digest()

    def test_is_immutable_and_travels(self) -> None:
        key = ProfileKey("a", "email")
        with pytest.raises(AttributeError):
            key.value = "b"
        with pytest.raises(AttributeError):
            del key.value
        assert pickle.loads(pickle.dumps(key)) == key
        assert copy.deepcopy(key) == key


MUTATING_LIST = ("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "__delitem__", "__imul__")
MUTATING_DICT = ("update", "pop", "popitem", "clear", "setdefault", "__delitem__")


class TestFreezing:
    @pytest.mark.long
    @given(st.dictionaries(st.text(), json_values))
    def test_freezing_and_thawing_gives_the_same_back(self, data: dict[str, Any]) -> None:
        frozen, size = freeze(data)
        assert thaw(frozen) == data
        assert size > 0

    def test_L9_nothing_frozen_can_be_changed(self) -> None:
        """L9: a caller cannot change the cached value."""
        source = {"tags": ["a"], "address": {"city": "Oslo", "lines": [{"n": 1}]}}
        record = Record(source)
        source["tags"].append("b")  # type: ignore[attr-defined]
        attributes: Any = record.attributes
        assert attributes["tags"] == ["a"]
        attempts: list[Callable[[], object]] = [
            lambda: attributes.__setitem__("x", 1),
            lambda: attributes["address"].__setitem__("city", "Bergen"),
            lambda: attributes["address"]["lines"][0].__setitem__("n", 2),
            *(lambda name=name: getattr(attributes["tags"], name)(0) for name in MUTATING_LIST),
            *(lambda name=name: getattr(attributes["address"], name)("city") for name in MUTATING_DICT),
            lambda: attributes["tags"].__setitem__(0, "c"),
            lambda: attributes["tags"].__iadd__(["c"]),
            lambda: attributes["address"].__ior__({"city": "Bergen"}),
        ]
        for attempt in attempts:
            with pytest.raises(TypeError, match="as_dict"):
                attempt()
        assert record.attributes == {"tags": ["a"], "address": {"city": "Oslo", "lines": [{"n": 1}]}}

    def test_refuses_what_is_nested_too_deep(self) -> None:
        deep: Any = 1
        for _ in range(MAX_DEPTH + 2):
            deep = [deep]
        with pytest.raises(ValueError, match="nested deeper"):
            Record({"deep": deep})

    def test_keeps_other_kinds_of_values(self) -> None:
        frozen: Any = freeze({"raw": bytearray(b"x"), "set": frozenset({1}), 5: "number"})[0]
        assert frozen["raw"] == b"x"
        assert frozen["set"] == [1]
        assert frozen["5"] == "number"


class TestRecord:
    def test_counts_its_size(self) -> None:
        small, large = Record({"a": "x"}), Record({"a": "x" * 10_000})
        assert 9_000 < large.size - small.size < 11_000

    def test_renews_without_copying(self) -> None:
        record = Record({"a": 1}, id="p1", source="census", loaded_at=100.0)
        renewed = record.renewed()
        assert renewed.attributes is record.attributes
        assert (renewed.id, renewed.source, renewed.size) == ("p1", "census", record.size)
        assert renewed.loaded_at > 100.0 == record.loaded_at

    def test_A18_its_repr_shows_no_values(self) -> None:
        """A18: no personal data in reprs."""
        assert repr(Record({"email": "alice@example.com"}, source="census")) == "<Record of census, 1 attributes>"


def profile(**attributes: object) -> Profile:
    return Profile(Record(attributes, id="p1", source="census"), status=Status.HIT, key=ProfileKey("p1"))


class TestProfile:
    def test_is_a_mapping(self) -> None:
        person = profile(tier="gold", spend=12.5)
        assert person["tier"] == "gold"
        assert person.get("missing") is None
        assert person.get("missing", 1) == 1
        assert dict(person) == {"tier": "gold", "spend": 12.5}
        assert len(person) == 2
        assert "tier" in person
        assert "missing" not in person
        assert person == {"tier": "gold", "spend": 12.5}
        with pytest.raises(KeyError):
            person["missing"]

    def test_an_empty_one_is_falsy_and_safe(self) -> None:
        nobody = Profile(reason=Reason.ANONYMOUS)
        assert not nobody
        assert not nobody.found
        assert nobody.get("tier", "guest") == "guest"
        assert dict(nobody) == {}
        assert nobody.as_dict() == {}
        assert nobody.status is Status.SKIPPED
        assert (nobody.id, nobody.age, nobody.source, nobody.key, nobody.error) == (None, None, None, None, None)
        assert not nobody.truncated

    def test_a_record_without_attributes_is_still_found(self) -> None:
        assert profile()
        assert len(profile()) == 0

    def test_says_where_it_comes_from(self) -> None:
        record = Record({"a": 1}, id="p1", source="census", truncated=True, loaded_at=0.0)
        person = Profile(record, status=Status.STALE, key=ProfileKey("p1"))
        assert person.is_stale
        assert person.truncated
        assert (person.id, person.source, person.key) == ("p1", "census", ProfileKey("p1"))
        assert person.age is not None
        assert person.age > 1_000_000

    def test_to_dict_is_fresh_and_json_ready(self) -> None:
        person = profile(tags=["a", {"b": [1]}])
        copy_ = person.as_dict()
        assert json.loads(json.dumps(copy_)) == {"tags": ["a", {"b": [1]}]}
        copy_["tags"].append("changed")
        assert person.as_dict() == {"tags": ["a", {"b": [1]}]}

    @pytest.mark.parametrize(
        "read",
        [
            lambda p: p["tier"],
            lambda p: p.get("tier"),
            lambda p: "tier" in p,
            lambda p: list(p),
            len,
            bool,
            lambda p: p == {},
            lambda p: p.found,
            lambda p: p.status,
            lambda p: p.reason,
            lambda p: p.error,
            lambda p: p.age,
            lambda p: p.id,
            lambda p: p.key,
            lambda p: p.source,
            lambda p: p.truncated,
            lambda p: p.is_stale,
            lambda p: p.attributes,
            lambda p: p.as_dict(),
            lambda p: p | {},
            lambda p: {} | p,
            lambda p: p.detached(),
            lambda p: pickle.dumps(p),
            repr,  # caches make their keys from it
        ],
    )
    def test_A13_every_way_of_reading_is_noticed(self, read: Any) -> None:
        """A13: any read of the profile makes the response personal."""
        reads: list[int] = []
        person = Profile(Record({"tier": "gold"}), status=Status.HIT, on_read=lambda: reads.append(1))
        assert reads == []
        read(person)
        assert reads

    def test_A18_its_repr_shows_no_values(self) -> None:
        """A18: no personal data in reprs."""
        person = profile(email="alice@example.com")
        assert re.fullmatch(r"<Profile hit, 1 attributes, #[0-9a-f]{16}>", repr(person))
        assert repr(Profile(reason=Reason.ANONYMOUS)) == "<Profile skipped, anonymous>"


@dataclass
class AsDataclass:
    tier: str
    spend: float = 0.0


class AsPydantic(pydantic.BaseModel):
    tier: str
    spend: float = 0.0


class AsStruct(msgspec.Struct):
    tier: str
    spend: float = 0.0


class TestModels:
    @pytest.mark.parametrize("model", [AsDataclass, AsPydantic, AsStruct])
    def test_as_model_takes_what_the_class_knows(self, model: Any) -> None:
        made = profile(tier="gold", spend=2.5, other="x").as_model(model)
        assert isinstance(made, model)
        assert (made.tier, made.spend) == ("gold", 2.5)
