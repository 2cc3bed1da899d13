"""Profiles as objects of the user's classes, and the errors of values that do not fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from profile_enrich import ConfigurationError, ModelMismatch, Profile, Record


def profile(**attributes: Any) -> Profile:
    return Profile(Record(attributes))


@dataclass
class AsDataclass:
    tier: str
    spend: float = 0.0
    tags: list[str] = field(default_factory=list)


class AsPydantic(pydantic.BaseModel):
    tier: str
    spend: float = 0.0


class AsStruct(msgspec.Struct):
    tier: str
    spend: float = 0.0


MODELS = pytest.mark.parametrize("model", [AsDataclass, AsPydantic, AsStruct])


@MODELS
def test_takes_what_the_class_knows(model: Any) -> None:
    made = profile(tier="gold", spend=2.5, other="x").as_model(model)
    assert isinstance(made, model)
    assert (made.tier, made.spend) == ("gold", 2.5)


@MODELS
def test_A18_what_is_missing_is_said_by_name(model: Any) -> None:
    """A18: no personal data in exceptions."""
    with pytest.raises(ModelMismatch, match=f"does not fit {model.__name__}: .*Make the field optional") as raised:
        profile(level="alice@example.com").as_model(model)
    ((place, problem),) = raised.value.problems
    assert "tier" in place + problem
    assert "missing" in problem
    assert "alice" not in str(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("model", [AsPydantic, AsStruct])
def test_A18_what_is_of_another_type_is_said_without_the_value(model: Any) -> None:
    """A18: pydantic and msgspec quote values; these errors do not."""
    with pytest.raises(ModelMismatch) as raised:
        profile(tier="gold", spend="alice@example.com").as_model(model)
    ((place, problem),) = raised.value.problems
    assert place == "spend"
    assert "float" in problem
    assert "alice" not in str(raised.value)


class Address(pydantic.BaseModel):
    zip: int


class Nested(pydantic.BaseModel):
    home: Address
    others: list[Address] = []
    by_name: dict[str, Address] = {}
    again: Nested | None = None


def test_A18_pydantic_places_are_paths_of_fields_never_of_data() -> None:
    """A18: the keys of a dictionary are data."""
    with pytest.raises(ModelMismatch) as raised:
        profile(home={"zip": "x"}, others=[{"zip": 1}, {}], by_name={"alice": {"zip": "y"}}).as_model(Nested)
    assert raised.value.problems == (
        ("home.zip", "int parsing"),
        ("others.1.zip", "missing"),
        ("by_name.….zip", "int parsing"),
    )
    assert "alice" not in str(raised.value)


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    tier: Literal["gold", "silver"]
    homes: list[AsStruct] = []


@pytest.mark.parametrize(
    ("attributes", "problems"),
    [
        ({"tier": "alice"}, (("tier", "not a value that the field takes"),)),
        ({"tier": "gold", "alice": 1}, (("", "the class does not take it"),)),
        ({"tier": "gold", "homes": [{"tier": 5}]}, (("homes[0].tier", "Expected `str`, got `int`"),)),
        ({}, (("", "Object missing required field `tier`"),)),
    ],
)
def test_A18_msgspec_says_the_first_place_without_quoting(
    attributes: dict[str, Any], problems: tuple[tuple[str, str], ...]
) -> None:
    """A18: some of its own messages quote the value, or the name of an unknown field."""
    with pytest.raises(ModelMismatch) as raised:
        profile(**attributes).as_model(Choice)
    assert raised.value.problems == problems
    assert "alice" not in str(raised.value)


@dataclass
class Strict:
    spend: float

    def __post_init__(self) -> None:
        if self.spend < 0:
            raise ValueError(f"{self.spend} is too little")


def test_A18_a_dataclass_that_refuses_is_named_without_its_words() -> None:
    """A18: the library's own message may quote the value."""
    with pytest.raises(ModelMismatch, match="its __post_init__ raised ValueError") as raised:
        profile(spend=-4711).as_model(Strict)
    assert "4711" not in str(raised.value)


class Refusing:
    @classmethod
    def model_validate(cls, data: object) -> None:
        raise ValueError("alice")


def test_a_class_that_looks_like_pydantic_and_raises_its_own() -> None:
    with pytest.raises(ModelMismatch, match="it raised ValueError"):
        profile().as_model(Refusing)


def test_the_account_is_bounded_and_the_list_is_whole() -> None:
    many = pydantic.create_model("Many", **{f"f{number}": (int, ...) for number in range(25)})  # type: ignore[call-overload]  # names made at run time
    with pytest.raises(ModelMismatch, match=r"f9: missing; and 15 more\. Make") as raised:
        profile().as_model(many)
    assert len(raised.value.problems) == 25


def test_refuses_other_classes() -> None:
    with pytest.raises(ConfigurationError, match="dict is not a dataclass, a pydantic model or a msgspec struct"):
        profile(a=1).as_model(dict)
