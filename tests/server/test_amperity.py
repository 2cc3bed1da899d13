"""The Amperity dialect of the embedded Profile API, checked against the vendor's OpenAPI file if it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema  # type: ignore[import-untyped]  # it has no types
import pytest

from profile_enrich.server import ProfileAPI
from profile_enrich.store import CollectionSpec, LocalStore, build_store

from .helpers import LIMITED, ODD_ID, SECRET, STRANGER, USERS, Answer, amperity, api, ask, bearer, build

_SPEC = Path(__file__).parents[3] / "shared" / "specs" / "amperity-profile-2025-07-31.openapi.json"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LocalStore(build(tmp_path_factory.mktemp("amperity"))) as store:
        yield api(store)


def index_id(app: ProfileAPI, name: str = "Users") -> str:
    return app.store.collection(name).index_id


def get(app: ProfileAPI, target: str, **options: Any) -> Answer:
    return ask(app, "/api/indexes" + target.replace("{users}", index_id(app)), **{"headers": amperity(), **options})


def error(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.json["status"] == status
    assert set(answer.json) == {"status", "message", "request_id", "trace_id"}
    assert all(isinstance(answer.json[name], str) for name in ("message", "request_id", "trace_id"))


def test_indexes(app: ProfileAPI) -> None:
    """A collection with more than 30 fields is not an index."""
    for target in ("", "/"):
        answer = get(app, target)
        assert answer.status == 200
        assert [item["name"] for item in answer.json["data"]] == ["Users", "Orders"]
        assert set(answer.json) == {"data"}
    index = answer.json["data"][0]
    assert index["description"] == "People"
    assert index["id"] == index_id(app)
    assert index["created_at"].endswith("Z")
    assert get(app, "/{users}").json == index
    assert get(app, "/{users}/").json == index
    error(get(app, "/" + index_id(app, "Wide")), 404)


def test_indexes_are_paged(app: ProfileAPI) -> None:
    first = get(app, "?limit=1&with_total=true").json
    assert [item["name"] for item in first["data"]] == ["Users"]
    assert first["total"] == 2
    last = get(app, f"?limit=1&next_token={first['next_token']}").json
    assert [item["name"] for item in last["data"]] == ["Orders"]
    assert set(last) == {"data"}
    error(get(app, "?next_token=x"), 400)
    error(get(app, f"/{{users}}/profiles?next_token={first['next_token']}"), 400)


def test_profile(app: ProfileAPI) -> None:
    """Attributes are strings; null is left out."""
    for target in ("/{users}/profiles/u7", "/{users}/profiles/u7/"):
        assert get(app, target).json == {
            "id": "u7",
            "index_id": index_id(app),
            "attributes": {"id": "u7", "email": "u7@x.example", "tier": "silver", "n": "7"},
        }
    assert get(app, "/{users}/profiles/" + quote(ODD_ID, safe="")).json["id"] == ODD_ID


def test_profiles_by_page_and_filter(app: ProfileAPI) -> None:
    page = get(app, "/{users}/profiles").json
    assert [item["id"] for item in page["data"]] == [f"u{n}" for n in range(25)]
    assert "total" not in page
    seen: list[str] = []
    token = ""
    while True:
        page = get(app, f"/{{users}}/profiles?filter[tier]=gold&limit=8&with_total=true{token}").json
        assert page["total"] == 30
        seen += [item["id"] for item in page["data"]]
        if "next_token" not in page:
            break
        token = f"&next_token={page['next_token']}"
    assert seen == [f"u{n}" for n in range(0, 60, 2)]
    assert [item["id"] for item in get(app, "/{users}/profiles?filter[tier]=odd+tier").json["data"]] == [ODD_ID]
    assert [item["id"] for item in get(app, "/{users}/profiles?filter%5Btier%5D=odd%20tier").json["data"]] == [ODD_ID]
    both = "/{users}/profiles?filter[tier]=gold&filter[email]=u4@x.example"
    assert [item["id"] for item in get(app, both).json["data"]] == ["u4"]
    for none in (
        "filter[tier]=Gold",
        "filter[tier]=gold%20",
        "filter[tier]=",
        "filter[tier]=gold&filter[email]=u5@x.example",
    ):
        assert get(app, f"/{{users}}/profiles?{none}&with_total=true").json == {"data": [], "total": 0}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=1001", "limit=", "limit=1.0", "limit=%D9%A1", "limit=1_0", "limit=9999999999",
        "limit=1&limit=1", "limit=+1", "next_token=null", "next_token=%00", "next_token=a&next_token=a",
        "with_total=1", "with_total=", "filter[n]=1", "filter[nope]=1", "filter[]=1", "filter=1",
        "filter[tier=1", "filter[tier]]=1", "filter[tier][x]=1", "filter[tier]=1&filter[tier]=2", "filter[tier]=%ff",
        "filter[%ff]=1", "filter[tier]=%", "%=1",
    ],
)  # fmt: skip
def test_P3_bad_parameters(app: ProfileAPI, query: str) -> None:
    answer = get(app, f"/{{users}}/profiles?{query}")
    error(answer, 400)
    assert "nope" not in answer.body.decode()


@pytest.mark.parametrize(
    "target",
    [
        "/nope", "/nope/profiles", "/nope/profiles/u7", "//profiles", "/Users", "/Users/profiles/u7", "/1/profiles/u7",
        "/{users}/profiles/nope", "/{users}/profiles/U7", "/{users}/profiles/u7%00", "/{users}/profiles//",
        "/{users}/profiles/../u7", "/{users}/profiles/u7/x", "/{users}/other", "/{users}/profiles/" + "x" * 5000,
        "/%7Busers%7D", "/../indexes", "/{users}%2Fprofiles",
    ],
)  # fmt: skip
def test_P3_what_is_not_there(app: ProfileAPI, target: str) -> None:
    error(get(app, target), 404)


@pytest.mark.parametrize("target", ["/%ff", "/%zz/profiles", "/{users}/profiles/%", "/{users}/profiles/%ed%a0%80"])
def test_P3_what_is_not_properly_encoded(app: ProfileAPI, target: str) -> None:
    error(get(app, target), 400)


def test_P3_a_token_of_another_index_or_filter(app: ProfileAPI) -> None:
    token = get(app, "/{users}/profiles?limit=1&filter[tier]=gold").json["next_token"]
    assert get(app, f"/{{users}}/profiles?limit=5&filter[tier]=gold&next_token={token}").status == 200
    error(get(app, f"/{{users}}/profiles?next_token={token}"), 400)
    error(get(app, f"/{{users}}/profiles?filter[tier]=silver&next_token={token}"), 400)
    error(get(app, f"/{index_id(app, 'Orders')}/profiles?next_token={token}"), 400)
    error(get(app, f"/{{users}}/profiles?filter[tier]=gold&next_token={token[:-1]}"), 400)


def test_parameters_as_clients_write_them(app: ProfileAPI) -> None:
    for flag in ("true", "True", "TRUE"):  # Python's HTTP clients write True
        assert get(app, f"/{{users}}/profiles?limit=1&with_total={flag}").json["total"] == len(USERS)
    assert "total" not in get(app, "/{users}/profiles?limit=1&with_total=False").json
    first = get(app, "/{users}/profiles?limit=3")
    assert get(app, "/{users}/profiles?limit=3&next_token=").json == first.json
    assert get(app, "?limit=1&next_token=").json == get(app, "?limit=1").json


def test_the_tenant_as_in_the_earlier_api(app: ProfileAPI) -> None:
    plain = {**bearer(), "api-version": "2025-07-31"}
    assert get(app, "", headers={**plain, "X-Amperity-Tenant": "acme"}).status == 200
    assert get(app, "", headers={**plain, "X-Amperity-Tenant": "acme", "amperity-tenant": "acme"}).status == 200
    error(get(app, "", headers={**plain, "X-Amperity-Tenant": "other"}), 403)
    assert get(app, "", headers={**plain, "X-Amperity-Tenant": "acme", "amperity-tenant": "other"}).status >= 400


def test_the_earlier_api_is_named_as_not_served(app: ProfileAPI) -> None:
    answer = ask(app, "/attribute/v0/customers/u1", headers=amperity())
    error(answer, 404)
    assert "This version of the API is not served here" in answer.json["message"]
    assert "api-version: 2025-07-31" in answer.json["message"]


def test_version(app: ProfileAPI) -> None:
    no_version = {**bearer(), "amperity-tenant": "acme"}
    assert get(app, "?api_version=2025-07-31", headers=no_version).status == 200
    assert get(app, "?api_version=2025-07-31").status == 200
    error(get(app, "", headers=no_version), 400)
    error(get(app, "", headers=amperity(version="2024-01-01")), 400)
    error(get(app, "?api_version=2024-01-01"), 400)


def test_P2_the_tenant_must_be_the_keys(app: ProfileAPI) -> None:
    for target in ("", "/{users}", "/{users}/profiles", "/{users}/profiles/u7", "/nope", "/nope/x/y/z"):
        error(get(app, target, headers=amperity(tenant="other")), 403)
        error(get(app, target, headers=amperity(STRANGER, tenant="other")), 403)
        error(get(app, target, headers=amperity(STRANGER)), 403)


def test_P1_a_missing_header_gets_a_status_that_the_vendor_documents_for_the_endpoint(app: ProfileAPI) -> None:
    """P1: 400 is documented for the lists only, 401 for all."""
    documented = {"": 400, "/{users}/profiles": 400, "/{users}": 401, "/{users}/profiles/u7": 401, "/nope": 401}
    for target, status in documented.items():
        error(get(app, target, headers={**bearer(), "api-version": "2025-07-31"}), status)
        error(get(app, target, headers={**bearer(), "amperity-tenant": "acme"}), status)
        error(get(app, target, headers=amperity(version="2024-01-01")), status)


def test_P2_no_key_or_a_wrong_one_learns_nothing(app: ProfileAPI) -> None:
    headers: list[dict[str, str]] = [
        {},
        amperity(SECRET + "x"),
        {**amperity(), "Authorization": "Basic x"},
        {"Authentication": f"Bearer {SECRET}", "amperity-tenant": "acme", "api-version": "2025-07-31"},
    ]
    for wrong in headers:
        for target in ("", "/{users}", "/{users}/profiles?limit=x", "/{users}/profiles/u7", "/nope", "/nope/x/y/z"):
            answer = get(app, target, headers=wrong)
            error(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"


def test_P2_a_key_without_the_index_cannot_tell_it_from_one_that_is_not_there(app: ProfileAPI) -> None:
    limited = amperity(LIMITED)
    assert [item["name"] for item in get(app, "?with_total=true", headers=limited).json["data"]] == ["Users"]
    assert get(app, "?with_total=true", headers=limited).json["total"] == 1
    for name in (index_id(app, "Orders"), index_id(app, "Wide"), "nope"):
        for target in (f"/{name}", f"/{name}/profiles", f"/{name}/profiles/o1", f"/{name}/profiles?limit=x"):
            answer = get(app, target, headers=limited)
            error(answer, 403)
            assert answer.json["message"] == "The API key has no permission for this operation."


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods(app: ProfileAPI, method: str) -> None:
    answer = get(app, "/{users}/profiles", method=method)
    error(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"


def test_P5_a_page_goes_on_after_a_refresh(tmp_path: Path) -> None:
    path = build(tmp_path)
    with LocalStore(path, check_every=0) as store:
        app = api(store)
        token = get(app, "/{users}/profiles?limit=1").json["next_token"]
        build_store(path, [CollectionSpec("Users", [{"id": "new"}])])
        answer = get(app, f"/{{users}}/profiles?limit=1&next_token={token}")
        assert answer.status == 200
        assert [row["id"] for row in answer.json["data"]] == ["new"]  # and none of the removed ones


@pytest.mark.skipif(not _SPEC.is_file(), reason=f"the vendor's OpenAPI file is not at {_SPEC.parent.name}/{_SPEC.name}")
@pytest.mark.parametrize(
    ("path", "target", "status"),
    [
        ("/indexes", "", 200),
        ("/indexes", "?limit=1&with_total=true", 200),
        ("/indexes", "?limit=x", 400),
        ("/indexes/{id}", "/{users}", 200),
        ("/indexes/{id}", "/nope", 404),
        ("/indexes/{id}/profiles", "/{users}/profiles?limit=3&with_total=true", 200),
        ("/indexes/{id}/profiles", "/{users}/profiles?filter[tier]=none", 200),
        ("/indexes/{id}/profiles", "/{users}/profiles?filter[n]=1", 400),
        ("/indexes/{id}/profiles", "/nope/profiles", 404),
        ("/indexes/{id}/profiles/{id}", "/{users}/profiles/u7", 200),
        ("/indexes/{id}/profiles/{id}", "/{users}/profiles/nope", 404),
    ],
)
def test_P1_responses_follow_the_vendors_schemas(app: ProfileAPI, path: str, target: str, status: int) -> None:
    spec = json.loads(_SPEC.read_bytes())

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        found: Any = node
        if "$ref" in node:
            found = spec
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
        return dict(found)

    answer = get(app, target)
    assert answer.status == status
    response = resolve(spec["paths"][path]["get"]["responses"][str(status)])
    schema = {**response["content"]["application/json"]["schema"], "components": spec["components"]}
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.validate(answer.json, schema, cls=jsonschema.Draft202012Validator, format_checker=checker)
    for unauthenticated, code in (({}, 401), (amperity(tenant="x"), 403)):
        refused = get(app, target, headers=unauthenticated)
        assert refused.status == code
        body = resolve(spec["paths"][path]["get"]["responses"][str(code)])["content"]["application/json"]["schema"]
        jsonschema.validate(
            refused.json, {**body, "components": spec["components"]}, cls=jsonschema.Draft202012Validator
        )
