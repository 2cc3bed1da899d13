"""Responses to keys with field scopes, in both dialects."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich.errors import ConfigurationError
from profile_enrich.server import ApiKey, FieldScope, ProfileAPI
from profile_enrich.server.auth.field_scopes import REDACTED, View, _members
from profile_enrich.store import CollectionSpec, LocalStore, build_store

from .helpers import SECRET, Answer, amperity, ask, bearer

PARTNER = "the-secret-of-the-partner"
BLIND = "the-secret-of-the-blind-one"
SALT = b"salt" * 8
SCOPE = FieldScope(show=frozenset({"id", "tier", "n"}), hash=frozenset({"email", "score"}), redact=frozenset({"phone"}))
PEOPLE: list[dict[str, Any]] = [
    {"id": "u1", "email": "ann@x.example", "tier": "gold", "phone": "123", "n": 1, "score": 1.50, "secret": "planted"},
    {"id": "u2", "email": "é\"\\\n", "tier": "gold", "phone": None, "n": 12345678901234567890, "score": None,
     "secret": "planted"},
    {"id": "u3", "email": None, "tier": None, "phone": "", "n": None, "score": 7, "secret": "planted"},
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("scopes") / "s"
    filterable = ["tier", "email", "secret", "phone"]
    build_store(
        path, [CollectionSpec("People", PEOPLE, filterable=filterable), CollectionSpec("Orders", [{"id": "o1"}])]
    )
    with LocalStore(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(store: LocalStore) -> ProfileAPI:
    whole = ApiKey.from_secret(SECRET, workspace="acme", id="whole")
    partner = ApiKey("partner", hashlib.sha256(PARTNER.encode()).digest(), "acme", fields={"People": SCOPE}, salt=SALT)
    blind = ApiKey.from_secret(
        BLIND, workspace="acme", id="blind", fields={"People": FieldScope(hash=frozenset({"id"}))}
    )
    return ProfileAPI(store, keys=[whole, partner, blind])


def hashed(value: str) -> str:
    return hmac.new(SALT, value.encode(), hashlib.sha256).hexdigest()


def census(app: ProfileAPI, id: str, secret: str = PARTNER) -> Answer:
    return ask(app, f"/api/v1/entities/1/record?record_id={id}", headers=bearer(secret))


def index(app: ProfileAPI) -> str:
    return app.store.collection("People").index_id


def listed(app: ProfileAPI, query: str = "", secret: str = PARTNER) -> Answer:
    return ask(app, f"/api/indexes/{index(app)}/profiles{query}", headers=amperity(secret))


def test_census_shows_hashes_redacts_and_leaves_out(app: ProfileAPI) -> None:
    assert census(app, "u1").json["data"] == {
        "id": "u1", "email": hashed("ann@x.example"), "tier": "gold", "phone": REDACTED, "n": 1, "score": hashed("1.5"),
    }  # fmt: skip
    assert census(app, "u2").json["data"] == {
        "id": "u2", "email": hashed("é\"\\\n"), "tier": "gold", "phone": None, "n": 12345678901234567890, "score": None,
    }  # fmt: skip
    assert census(app, "u3").json["data"]["email"] is None
    assert "planted" not in census(app, "u1").body.decode()


def test_amperity_has_the_same_hashes(app: ProfileAPI) -> None:
    for number, person in enumerate(listed(app).json["data"], 1):
        single = ask(app, f"/api/indexes/{index(app)}/profiles/u{number}", headers=amperity(PARTNER)).json
        assert single == person
        assert set(person) == {"id", "index_id", "attributes"}
        record = census(app, f"u{number}").json["data"]
        expected = {name: str(value) for name, value in record.items() if value is not None}
        assert person["attributes"] == expected
    assert "planted" not in listed(app).body.decode()


def test_P2_only_fields_in_clear_can_be_filtered_by_and_others_do_not_show(app: ProfileAPI) -> None:
    assert [person["id"] for person in listed(app, "?filter[tier]=gold&with_total=true").json["data"]] == ["u1", "u2"]
    refused = [
        listed(app, f"?filter[{name}]=x").json["message"] for name in ("secret", "email", "phone", "nobody", "score")
    ]
    assert set(refused) == {"a filter names an attribute that is not filterable; filterable are: tier."}
    # Another key's page token for the same filters gives access to nothing more.
    token = listed(app, "?limit=1&filter[secret]=planted", SECRET).json["next_token"]
    assert listed(app, f"?limit=1&filter[secret]=planted&next_token={token}").status == 400


def test_a_key_without_scopes_gets_what_is_stored(app: ProfileAPI, store: LocalStore) -> None:
    assert census(app, "u2", SECRET).body == store.get_payload("People", "u2")
    assert json.loads(census(app, "u1", SECRET).body)["data"] == PEOPLE[0]


def test_fields_name_the_entities_too(app: ProfileAPI) -> None:
    answer = ask(app, "/api/v1/entities/2/record?record_id=o1", headers=bearer(PARTNER))
    assert answer.status == 403
    assert [item["name"] for item in ask(app, "/api/v1/entities", headers=bearer(PARTNER)).json["data"]] == ["People"]


def test_P2_who_does_not_see_the_id_cannot_list(app: ProfileAPI) -> None:
    assert listed(app, secret=BLIND).status == 403
    answer = census(app, "u1", BLIND).json["data"]
    assert list(answer) == ["id"]
    assert len(answer["id"]) == 64
    # Without its own salt, the key's hashes use the store's secret, which is private.
    assert answer["id"] not in (hashed("u1"), hashlib.sha256(b"u1").hexdigest())
    other = ApiKey.from_secret(BLIND, id="other", fields={"People": FieldScope(hash=frozenset({"id"}))})
    view = other.view(app.store.collection("People"), app.store.secret)
    payload = app.store.get_payload("People", "u1")
    assert view is not None
    assert payload is not None
    assert json.loads(view.census(payload))["data"]["id"] != answer["id"]


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=6,
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_members_are_those_of_the_object(value: dict[str, Any], indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    assert [(name, json.loads(raw)) for name, raw in _members(text)] == list(value.items())


def test_numbers_keep_their_digits(store: LocalStore) -> None:
    view = View(store.collection("People"), FieldScope(show=frozenset({"a"})), SALT)
    assert view.census(b'{"data":{"a":1.10,"b":2}}') == b'{"data":{"a":1.10}}'


def test_scopes_that_make_no_sense() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        FieldScope()
    with pytest.raises(ConfigurationError, match="twice"):
        FieldScope(show=frozenset({"a"}), hash=frozenset({"a"}))
    wrong: Any = "abc"
    with pytest.raises(ConfigurationError, match="sequence"):
        FieldScope(show=wrong)
    with pytest.raises(ConfigurationError, match="FieldScope"):
        ApiKey.from_secret(SECRET, fields={"People": wrong})
    with pytest.raises(ConfigurationError, match="entities do not"):
        ApiKey.from_secret(SECRET, entities=["Orders"], fields={"People": SCOPE})
    with pytest.raises(ConfigurationError, match="whole records"):
        ApiKey.from_secret(SECRET, admin=True, fields={"People": SCOPE})
    lists: Any = ["a", "b"]
    assert FieldScope(show=lists).named == {"a", "b"}
