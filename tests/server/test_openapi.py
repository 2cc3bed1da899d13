"""The server's own OpenAPI description: valid, complete and accurate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner
from openapi_spec_validator import OpenAPIV31SpecValidator

from profile_enrich.cli.commands.openapi import openapi
from profile_enrich.server import ApiKey, FieldScope, KeyFile, ProfileAPI
from profile_enrich.server.auth.key_file import keys_beside
from profile_enrich.server.endpoints.openapi import ENDPOINTS
from profile_enrich.server.routing import route
from profile_enrich.store import LocalStore

from .helpers import KEYS, LIMITED, SECRET, USERS, Answer, amperity, api, ask, bearer, build

PARTNER = "the-secret-of-the-partner"
SCOPE = FieldScope(show=frozenset({"id", "n"}), hash=frozenset({"email"}), redact=frozenset({"tier"}))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("openapi"))


@pytest.fixture(scope="module")
def app(path: Path) -> Any:
    partner = ApiKey.from_secret(PARTNER, workspace="acme", id="partner", fields={"Users": SCOPE})
    with LocalStore(path) as store:
        yield api(store, keys=[*KEYS, partner])


def document(app: ProfileAPI, secret: str = SECRET) -> Any:
    answer = ask(app, "/openapi.json", headers=bearer(secret))
    assert answer.status == 200
    return answer.json


@pytest.mark.parametrize("secret", [SECRET, LIMITED, PARTNER])
def test_it_is_valid(app: ProfileAPI, secret: str) -> None:
    OpenAPIV31SpecValidator(document(app, secret)).validate()


def test_P2_it_needs_a_key_and_shows_what_the_key_sees(app: ProfileAPI) -> None:
    assert ask(app, "/openapi.json").status == 401
    whole = json.dumps(document(app))
    assert all(name in whole for name in ("Orders", "Wide", "c17", "email", "total"))
    partner = json.dumps(document(app, PARTNER))
    assert "Users" in partner
    index = app.store.collection("Users").index_id
    others = {item.index_id for item in app.store.collections()} - {index}
    assert not [name for name in ("Orders", "Wide", "c17", '"none"', *others) if name in partner]
    schemas = document(app, PARTNER)["components"]
    assert set(schemas["schemas"]["Record1"]["properties"]) == {"id", "n", "email", "tier"}
    assert schemas["parameters"]["filter"]["schema"]["properties"] == {}
    assert set(document(app, LIMITED)["components"]["parameters"]["filter"]["schema"]["properties"]) == {
        "tier",
        "email",
    }


def test_every_endpoint_is_routed_to_what_it_is_called(app: ProfileAPI) -> None:
    for endpoint in ENDPOINTS:
        segments = [part.encode() for part in endpoint.path.split("/")[1:]]
        kind, _ = route(segments)
        assert kind == endpoint.kind
        others = {"get", "post"} - {endpoint.method}
        assert ask(app, endpoint.path, method=others.pop().upper(), headers=bearer()).status in (405, 401)


def check(app: ProfileAPI, secret: str, kind: str, target: str, answer: Answer) -> None:
    spec = document(app, secret)
    (endpoint,) = [each for each in ENDPOINTS if each.kind == kind]
    response = spec["paths"][endpoint.path][endpoint.method]["responses"][str(answer.status)]
    schema = {**response["content"]["application/json"]["schema"], "components": spec["components"]}
    jsonschema.validate(
        answer.json,
        schema,
        cls=jsonschema.Draft202012Validator,
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )


@pytest.mark.parametrize("secret", [SECRET, PARTNER])
def test_answers_follow_their_schemas(app: ProfileAPI, secret: str) -> None:
    index = app.store.collection("Users").index_id
    body = json.dumps({"ids": ["u1", "nobody"]}).encode()
    for kind, target, status in (
        ("healthz", "/healthz", 200),
        ("status", "/status", 200),
        ("openapi", "/openapi.json", 200),
        ("census.entities", "/api/v1/entities", 200),
        *(("census.record", f"/api/v1/entities/1/record?record_id=u{n}", 200) for n in range(3)),
        ("census.record", "/api/v1/entities/1/record?record_id=nobody", 404),
        ("census.record", "/api/v1/entities/1/record", 400),
        ("amperity.indexes", "/api/indexes?with_total=true", 200),
        ("amperity.index", f"/api/indexes/{index}", 200),
        ("amperity.profiles", f"/api/indexes/{index}/profiles?limit=100&with_total=true", 200),
        ("amperity.profiles", f"/api/indexes/{index}/profiles?limit=7", 200),
        ("amperity.profiles", f"/api/indexes/{index}/profiles?filter[n]=7", 400),
        ("amperity.profile", f"/api/indexes/{index}/profiles/u1", 200),
        ("amperity.profile", f"/api/indexes/{index}/profiles/nobody", 404),
    ):
        answer = ask(app, target, headers=amperity(secret))
        assert answer.status == status, target
        check(app, secret, kind, target, answer)
        if kind != "healthz":
            check(app, secret, kind, target, ask(app, target))
    for kind, target in (
        ("census.batch", "/api/x/entities/1/records"),
        ("amperity.batch", f"/api/x/indexes/{index}/profiles"),
    ):
        for content, status in ((body, 200), (b"", 400), (b" " * 600_000, 413)):
            answer = ask(app, target, method="POST", headers=amperity(secret), body=content)
            assert answer.status == status
            check(app, secret, kind, target, answer)


def test_a_wrong_answer_would_be_noticed(app: ProfileAPI) -> None:
    foreign = Answer(
        200, {}, json.dumps({"data": [{"id": "x", "index_id": "y", "attributes": {"planted": "1"}}]}).encode()
    )
    with pytest.raises(jsonschema.ValidationError):
        check(app, PARTNER, "amperity.profiles", "", foreign)


def test_where_it_is_mounted(app: ProfileAPI) -> None:
    answer = ask(app, "/shop/api/openapi.json", headers=bearer(), root_path="/shop/api")
    assert answer.json["servers"] == [{"url": "/shop/api"}]
    assert document(app)["servers"] == [{"url": "/"}]


def test_from_the_command_line(path: Path, app: ProfileAPI) -> None:
    KeyFile(keys_beside(path)).add("partner", workspace="acme", fields={"Users": SCOPE})
    shown = CliRunner().invoke(openapi, ["--store", str(path), "--key", "partner"])
    assert json.loads(shown.stdout) == document(app, PARTNER)
    whole = CliRunner().invoke(openapi, ["--store", str(path), "--server", "https://profiles.example"])
    assert json.loads(whole.stdout)["servers"] == [{"url": "https://profiles.example"}]
    assert "Record3" in whole.stdout
    wrong = CliRunner().invoke(openapi, ["--store", str(path), "--key", "nobody"])
    assert (wrong.exit_code, "there is no key 'nobody'" in wrong.stderr) == (2, True)
    assert len(USERS) == app.store.collection("Users").rows
