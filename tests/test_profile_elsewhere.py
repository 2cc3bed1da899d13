"""Uses of a profile: serialise, copy, compare, pass to other libraries."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest
from fastapi import FastAPI
from fastapi.exceptions import ResponseValidationError
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from profile_enrich import ConfigurationError, MemorySource, ProfileClient, ProfileMiddleware, from_header
from profile_enrich.fastapi import CurrentProfile
from profile_enrich.profile import Profile, ProfileKey, Reason, Record, Status
from profile_enrich.web.encoding_hint import HINT, explain_encoding

ADA: dict[str, Any] = {"name": "Ada", "visits": 4, "tags": ["a", {"b": [1]}], "address": {"city": "London", "no": None}}


def of(key: str = "u1", namespace: str = "census:one", **attributes: Any) -> Profile:
    record = Record(attributes or ADA, source="census")
    record.namespace = namespace
    return Profile(record, status=Status.HIT, key=ProfileKey(key))


class TestTellingPeopleApart:
    def test_A24_reprs_differ_between_people_and_hold_neither_value_nor_id(self) -> None:
        alike = [of("u1"), of("u2"), of("u1", "census:two"), of("u1", "amperity:one")]
        assert len({repr(profile) for profile in alike}) == 4
        assert repr(of("u1")) == repr(of("u1")), "one person's is the same in one process"
        for text in (
            repr(of("user-17")),
            str(of("user-17")),
            f"{of('user-17')}",
            repr(of().attributes),
            repr(of()["tags"]),
        ):
            assert not any(value in text for value in ("user-17", "Ada", "London", "city", "name", "census:one"))

    def test_A24_what_is_inside_differs_between_people_too_and_its_views_hold_no_value(self) -> None:
        """A24: an object of a profile is the argument of a cached function, or a variable in a report."""

        def inside(city: str) -> list[object]:
            profile = of("u1", address={"city": city}, visited=[city], nested={"deep": [{"city": city}]})
            attributes = profile.attributes
            return [attributes, *attributes.values(), profile.items(), profile.values(), profile["address"].items()]

        ann, bob = ([repr(each) for each in inside(city)] for city in ("Planted-Lyon", "Planted-Oslo"))
        differing = [one for one, other in zip(ann, bob, strict=True) if one != other]
        assert len(differing) >= 7
        assert ann == [repr(each) for each in inside("Planted-Lyon")], "one value has one text in one process"
        assert not any("Planted" in text for text in ann + bob)
        profile = of("u1", address={"city": "Lyon"})
        assert list(profile["address"].items()) == [("city", "Lyon")]
        assert list(profile["address"].values()) == ["Lyon"]

    def test_A24_by_another_type_of_key_or_by_the_vendors_id_too(self) -> None:
        keys = [ProfileKey("u1"), ProfileKey("u1", "email"), None]
        profiles = [Profile(Record(ADA, id=id), key=key) for key in keys for id in ("a", "b")]
        unnamed = [Profile(Record({"name": name})) for name in ("Ann", "Bob")]
        assert len({repr(profile) for profile in profiles + unnamed}) == 8

    def test_A24_one_that_was_not_looked_up_yet_is_no_other(self) -> None:
        from profile_enrich.profile.profile import pending

        one, other = pending(lambda: None), pending(lambda: None)
        assert len({repr(one), repr(one), repr(other)}) == 3
        assert len({pickle.dumps(one), pickle.dumps(one), pickle.dumps(other)}) == 3  # joblib's and diskcache's key
        assert pickle.loads(pickle.dumps(one)).reason is Reason.NOT_LOOKED_UP
        assert one != other
        assert one == one

    def test_equality_is_by_person_and_by_value(self) -> None:
        assert of("u1") == of("u1")
        assert of("u1") != of("u2")
        assert of("u1") != of("u1", "census:two")
        assert of("u1") == ADA
        assert of("u1") != {}
        assert of("u1") != 7
        with pytest.raises(TypeError, match="unhashable"):
            hash(of("u1"))


class TestSerialising:
    def test_values_are_plain_to_encoders(self) -> None:
        profile = of()
        assert json.loads(json.dumps(dict(profile))) == ADA
        assert json.loads(json.dumps({**profile})) == ADA
        assert json.loads(bytes(JSONResponse(dict(profile)).body)) == ADA
        assert msgspec.json.decode(msgspec.json.encode(dict(profile))) == ADA
        assert profile["tags"] == ["a", {"b": [1]}]
        assert profile["address"] == {"city": "London", "no": None}
        assert isinstance(profile["tags"], list)
        assert isinstance(profile["address"], dict)

    def test_unions_are_plain_dictionaries(self) -> None:
        profile = of()
        assert profile | {"visits": 5} == {**ADA, "visits": 5}
        assert {"visits": 5, "new": 1} | profile == {**ADA, "new": 1}
        (profile | {})["tags"].append("c")
        assert profile["tags"] == ADA["tags"]

    @pytest.mark.parametrize(
        "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p)), Profile.detached]
    )
    def test_copies_have_the_answer_and_no_request(self, copied: Any) -> None:
        profile = of()
        again = copied(profile)
        assert again is not profile
        assert again == profile
        assert (again.status, again.key, again.source) == (Status.HIT, ProfileKey("u1"), "census")
        assert copied(Profile(reason=Reason.ANONYMOUS)).reason is Reason.ANONYMOUS
        with pytest.raises(TypeError, match="as_dict"):
            again["address"]["city"] = "Paris"

    def test_copies_of_a_value_stay_read_only(self) -> None:
        for value in (of()["address"], of()["tags"]):
            for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
                assert again == value
                with pytest.raises(TypeError, match="as_dict"):
                    again.clear()

    def test_pydantic_takes_it_as_a_field(self) -> None:
        class Page(pydantic.BaseModel):
            profile: Profile

        page = Page(profile=of())
        assert page.model_dump() == {"profile": ADA}
        assert json.loads(page.model_dump_json()) == {"profile": ADA}
        assert Page.model_json_schema()["properties"]["profile"]["type"] == "object"
        assert "London" not in repr(page)
        with pytest.raises(pydantic.ValidationError):
            Page.model_validate({"profile": {"name": "Ada"}})


def app() -> FastAPI:
    app = FastAPI()

    @app.get("/none", response_model=None)
    async def none(profile: CurrentProfile) -> Any:
        return profile

    @app.get("/untyped")
    async def untyped(profile: CurrentProfile):  # type: ignore[no-untyped-def]
        return profile

    @app.get("/profile")
    async def typed(profile: CurrentProfile) -> Profile:
        return profile

    @app.get("/dict")
    async def plain(profile: CurrentProfile) -> dict[str, object]:
        return profile.as_dict()

    @app.get("/shallow")
    async def shallow(profile: CurrentProfile) -> dict[str, object]:
        return dict(profile)

    @app.get("/attributes")
    async def attributes(profile: CurrentProfile) -> dict[str, Any]:
        return {"attributes": profile.attributes}

    client = ProfileClient(MemorySource({"u1": ADA}))
    app.add_middleware(ProfileMiddleware, client=client, identify=from_header("x-user", trusted=True))
    return app


@pytest.mark.parametrize("path", ["none", "untyped", "profile", "dict", "shallow", "attributes"])
def test_fastapi_answers_with_it(path: str) -> None:
    answer = TestClient(app()).get(f"/{path}", headers={"x-user": "u1"})
    assert answer.status_code == 200
    assert answer.json() == ({"attributes": ADA} if path == "attributes" else ADA)
    assert answer.headers["cache-control"] == "private"
    nobody = TestClient(app()).get(f"/{path}")
    assert nobody.json() == ({"attributes": {}} if path == "attributes" else {})


class Tiered(pydantic.BaseModel):
    tier: str = "guest"
    visits: int = 0


def returns(annotation: Any, answer: Any) -> TestClient:
    app = FastAPI()

    async def page(profile: CurrentProfile) -> Any:
        return answer(profile)

    app.add_api_route("/", page, response_model=annotation)
    client = ProfileClient(MemorySource({"u1": ADA}))
    app.add_middleware(ProfileMiddleware, client=client, identify=from_header("x-user", trusted=True))
    return TestClient(app)


@pytest.mark.parametrize(
    ("annotation", "answer"),
    [
        (dict[str, object], lambda profile: profile),
        (dict[str, dict[str, object]], lambda profile: {"profile": profile}),
        (dict[str, object], lambda profile: {"profile": profile}),
        (Any, lambda profile: [profile]),
        (Tiered, lambda profile: profile),
        (None, JSONResponse),
        (None, lambda profile: JSONResponse({"profile": profile})),
        (None, lambda profile: msgspec.json.encode(profile)),
    ],
)
def test_what_cannot_be_encoded_says_what_to_call(annotation: Any, answer: Any) -> None:
    with pytest.raises(Exception) as raised:  # the framework's own
        returns(annotation, answer).get("/", headers={"x-user": "u1"})
    assert raised.value.__notes__ == [HINT]
    assert "London" not in str(raised.value)


def test_a_model_of_all_defaults_is_not_taken_for_the_profile() -> None:
    """FastAPI reads a return value by its attributes, and pydantic takes those that it misses for defaults."""
    with pytest.raises(ResponseValidationError, match="as_model"):
        returns(Tiered, lambda profile: profile).get("/", headers={"x-user": "u1"})
    with pytest.raises(AttributeError, match=r"profile\['tier'\]"):
        of().tier  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(of(), "tier")


def test_encoders_take_it_with_their_hook() -> None:
    assert json.loads(json.dumps({"profile": of()}, default=Profile.as_dict)) == {"profile": ADA}
    assert msgspec.json.decode(msgspec.json.encode([of()], enc_hook=Profile.as_dict)) == [ADA]


@pytest.mark.parametrize("encoder", ["json.dumps", "msgspec.json.encode", "orjson.dumps"])
def test_A24_outside_of_a_request_it_is_the_encoders_own_error_without_a_value(encoder: str) -> None:
    """A24: encoders cannot serialise unknown objects; docs/web-developers.md says what to pass."""
    module, _, name = encoder.rpartition(".")
    encode = getattr(pytest.importorskip(module, reason=f"{module} is not installed: pip install {module}"), name)
    for value in (of(), {"profile": of()}, [of()]):
        with pytest.raises(TypeError, match=r"Profile|profile_enrich") as raised:
            encode(value)
        assert "London" not in str(raised.value)
        assert not [note for note in getattr(raised.value, "__notes__", ()) if "London" in note]


@pytest.mark.parametrize("outside", [True, False])
def test_a_session_that_cannot_hold_it_says_what_to_call(outside: bool) -> None:
    async def page(request: Request) -> Response:
        request.session["profile"] = request.state.profile
        return Response()

    client = ProfileClient(MemorySource({"u1": ADA}))
    layers = [
        Middleware(SessionMiddleware, secret_key="secret"),
        Middleware(ProfileMiddleware, client=client, identify=from_header("x-user", trusted=True)),
    ]
    app = Starlette(routes=[Route("/", page)], middleware=layers if outside else layers[::-1])
    with pytest.raises(TypeError, match="Profile") as raised:
        TestClient(app).get("/", headers={"x-user": "u1"})
    assert raised.value.__notes__[-1] == HINT


def test_an_error_about_something_else_gets_no_note() -> None:
    for error in (
        TypeError("Object of type set is not JSON serializable"),
        ValueError("Profile"),
        TypeError("Profile"),
    ):
        explain_encoding(error)
        assert not hasattr(error, "__notes__")


def test_fastapi_describes_it_as_an_object() -> None:
    schema = app().openapi()["paths"]["/profile"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["type"] == "object"


@pydantic.dataclasses.dataclass
class Customer:
    first_name: str = pydantic.Field(alias="First Name")
    visits: int = 0


@dataclass
class Plain:
    visits: int


class TestModels:
    def test_a_dataclass_of_pydantic_follows_pydantic(self) -> None:
        customer = of(**{"First Name": "Ada", "visits": "7"}).as_model(Customer)
        assert (customer.first_name, customer.visits) == ("Ada", 7)
        assert of(visits=7).as_model(Plain) == Plain(7)

    def test_A24_a_mismatch_has_no_values_in_its_frames(self) -> None:
        import traceback

        from profile_enrich import ModelMismatch

        for model in (Customer, Plain):
            with pytest.raises(ModelMismatch) as raised:
                of(first_name="Planted-Ann", tags=["Planted-tag"]).as_model(model)
            report = "".join(traceback.TracebackException.from_exception(raised.value, capture_locals=True).format())
            assert "Planted" not in report.replace('of(first_name="Planted-Ann", tags=["Planted-tag"])', "")

    def test_a_profile_is_made_of_a_record(self) -> None:
        with pytest.raises(ConfigurationError, match=r"Profile\(Record"):
            Profile({"a": 1})  # type: ignore[arg-type]
