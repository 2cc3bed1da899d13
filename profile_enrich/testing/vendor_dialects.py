"""Healthy responses of Census and Amperity, written only from the vendors' documents.

It imports nothing from `profile_enrich.sources` or `profile_enrich.server`, so that tests detect a misreading of the
documents there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs, parse_qsl, unquote_to_bytes

from .exchange import Answer, json_answer
from .recorder import Call

__all__ = ["Vendor", "VendorCollection"]

VERSIONS = {"2025-07-31"}
Profiles = MutableMapping[str, Mapping[str, object]]


class _Refused(Exception):
    """Carries an error response."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(slots=True)
class VendorCollection:
    """A named collection of profiles: a Census entity and an Amperity index.

    Args:
        number: Census's entity id.
        name: the entity's or index's name.
        profiles: attributes by profile id; may be modified at any time.
        filterable: attributes that Amperity can filter by; `None` for all.
    """

    number: int
    name: str
    profiles: Profiles
    filterable: frozenset[str] | None = None

    @property
    def index_id(self) -> str:
        """Amperity's id of the index."""
        return f"idx-{self.number:06d}"

    def may_filter(self, name: str) -> bool:
        """Return whether Amperity can filter by this attribute."""
        if self.filterable is not None:
            return name in self.filterable
        return any(name in attributes for attributes in list(self.profiles.values()))


@dataclass(slots=True)
class Vendor:
    """The data and responses of the vendor server.

    Args:
        key: the static API key or token; `None` for no authentication.
        tenant: Amperity's tenant.
        client_id: for OAuth client credentials.
        client_secret: for OAuth client credentials.
        issuer_key: the older issuer token.
        token_ttl: the lifetime of an issued token, in seconds.
        token_field: the field of the issuer exchange's answer that holds the token (the vendor does not document it).
        clock: the clock of token expiry.
    """

    key: str | None
    tenant: str
    client_id: str
    client_secret: str
    issuer_key: str
    token_ttl: float
    token_field: str
    clock: Callable[[], float] = time.monotonic
    id_column: str = "id"
    collections: list[VendorCollection] = field(default_factory=list[VendorCollection])
    tokens: dict[str, float] = field(default_factory=dict[str, float])
    issued: int = 0

    def add(self, name: str, profiles: Profiles, filterable: Iterable[str] | None = None) -> VendorCollection:
        """Add a collection."""
        number = len(self.collections) + 1
        found = VendorCollection(number, name, profiles, None if filterable is None else frozenset(filterable))
        self.collections.append(found)
        return found

    def answer(self, call: Call) -> Answer:
        """Return the healthy response to a request."""
        try:
            return self._route(call)
        except _Refused as refused:
            return refused.answer

    def _route(self, call: Call) -> Answer:
        parts = [unquote_to_bytes(part) for part in call.raw_path.strip("/").split("/")]
        try:
            path = [part.decode() for part in parts]
        except UnicodeDecodeError:
            return _amperity_error(400, "The path is not UTF-8.")
        if path[:2] == ["api", "v1"]:
            return self._census(call, path[2:])
        if path[:2] == ["api", "v0"]:
            return self._token(call, path[2:])
        if path[:1] == ["api"]:
            return self._amperity(call, path[1:])
        return _amperity_error(404, "There is nothing here.")

    # --- Census -----------------------------------------------------------------------------------------------------

    def _census(self, call: Call, path: list[str]) -> Answer:
        given = call.headers.get("authorization") or call.headers.get("authentication")
        if self.key is not None and _bearer(given) != self.key:
            return _census_error(401, "unauthorized", "A valid API key is needed.")
        if call.method not in ("GET", "HEAD"):
            return _census_error(405, "method_not_allowed", "Only GET is allowed.")
        if path == ["entities"]:
            listed = [{"id": each.number, "name": each.name, "library_id": 1} for each in self.collections]
            return json_answer(200, {"data": listed})
        if len(path) == 3 and path[0] == "entities" and path[2] == "record":
            return self._record(call, path[1])
        return _census_error(404, "not_found", "There is no such resource.")

    def _record(self, call: Call, number: str) -> Answer:
        found = next((each for each in self.collections if str(each.number) == number), None)
        if found is None:
            return _census_error(404, "not_found", "There is no such entity.")
        asked = parse_qs(call.target.partition("?")[2], keep_blank_values=True).get("record_id", [])
        if len(asked) != 1 or not asked[0]:
            return _census_error(400, "bad_request", "Exactly one record_id is needed.")
        attributes = found.profiles.get(asked[0])
        if attributes is None:
            return _census_error(404, "not_found", "There is no such record.")
        return json_answer(200, {"data": {self.id_column: asked[0], **attributes}})

    # --- Amperity ---------------------------------------------------------------------------------------------------

    def _amperity(self, call: Call, path: list[str]) -> Answer:
        query = parse_qsl(call.target.partition("?")[2], keep_blank_values=True)
        if not self._known_token(_bearer(call.headers.get("authorization"))):
            return _amperity_error(401, "The access token is missing, wrong or expired.")
        if call.headers.get("amperity-tenant") != self.tenant:
            return _amperity_error(403, "The token has no policy for this tenant.")
        if (call.headers.get("api-version") or dict(query).get("api_version")) not in VERSIONS:
            return _amperity_error(400, "The api-version is missing or not supported.")
        if call.method not in ("GET", "HEAD"):
            return _amperity_error(405, "Only GET is allowed.")
        if path == ["indexes"]:
            return json_answer(200, _page([_index(each) for each in self.collections], query, "indexes"))
        if path[:1] != ["indexes"] or len(path) not in (2, 3, 4) or (len(path) > 2 and path[2] != "profiles"):
            return _missing()
        found = next((each for each in self.collections if each.index_id == path[1]), None)
        if found is None:
            return _missing()
        if len(path) == 2:
            return json_answer(200, _index(found))
        if len(path) == 4:
            attributes = found.profiles.get(path[3])
            return _missing() if attributes is None else json_answer(200, _profile(found, path[3], attributes))
        return self._profiles(found, query)

    def _profiles(self, found: VendorCollection, query: list[tuple[str, str]]) -> Answer:
        filters = [(name[7:-1], value) for name, value in query if name.startswith("filter[") and name.endswith("]")]
        for name, _ in filters:
            if not found.may_filter(name):
                return _amperity_error(400, "The index has no such filter.")
        chosen = [
            _profile(found, id, attributes)
            for id, attributes in list(found.profiles.items())
            if all(name in attributes and _text(attributes[name]) == value for name, value in filters)
        ]
        return json_answer(200, _page(chosen, query, json.dumps([found.index_id, sorted(filters)])))

    # --- tokens -----------------------------------------------------------------------------------------------------

    def _known_token(self, token: str | None) -> bool:
        if self.key is None:
            return True
        if token is None:
            return False
        return token == self.key or self.tokens.get(token, float("-inf")) > self.clock()

    def issue(self, seconds: float) -> str:
        """Return a new token in the form of a JWT, without a valid signature."""
        self.issued += 1
        claims = {"jti": self.issued, "exp": int(time.time() + seconds)}
        parts = [{"alg": "none", "typ": "JWT"}, claims]
        token = ".".join([*(_base64(json.dumps(part).encode()) for part in parts), secrets.token_urlsafe(16)])
        self.tokens[token] = self.clock() + seconds
        return token

    def _token(self, call: Call, path: list[str]) -> Answer:
        if call.method != "POST":
            return _amperity_error(405, "Only POST is allowed.")
        if call.headers.get("x-amperity-tenant") != self.tenant:
            return _amperity_error(403, "The tenant is missing or wrong.")
        if path == ["oauth2", "token"]:
            return self._oauth(call)
        if len(path) == 4 and path[:2] == ["admin", "api-keys"] and path[3] == "tokens":
            return self._exchange(call)
        return _missing()

    def _oauth(self, call: Call) -> Answer:
        form = dict(parse_qsl(call.body.decode("utf-8", "replace")))
        if form.get("grant_type") != "client_credentials":
            return json_answer(400, {"error": "unsupported_grant_type"})
        if (form.get("client_id"), form.get("client_secret")) != (self.client_id, self.client_secret):
            return json_answer(401, {"error": "invalid_client"})
        token = self.issue(self.token_ttl)
        return json_answer(200, {"access_token": token, "expires_in": int(self.token_ttl), "token_type": "Bearer"})

    def _exchange(self, call: Call) -> Answer:
        if _bearer(call.headers.get("authorization")) != self.issuer_key:
            return _amperity_error(401, "The issuer token is not valid.")
        try:
            asked = datetime.fromisoformat(json.loads(call.body)["expires-at"])
        except (ValueError, KeyError, TypeError):
            return _amperity_error(400, "expires-at is missing or not a date.")
        wanted = (asked - datetime.now(UTC)).total_seconds() if asked.tzinfo else -1.0
        if wanted <= 0:
            return _amperity_error(400, "expires-at is past.")
        seconds = min(wanted, self.token_ttl)
        expires = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat().replace("+00:00", "Z")
        return json_answer(200, {self.token_field: self.issue(seconds), "expires-at": expires})


def _bearer(header: str | None) -> str | None:
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _census_error(status: int, code: str, message: str) -> Answer:
    return json_answer(status, {"error": {"code": code, "message": message}})


def _amperity_error(status: int, message: str) -> Answer:
    ids = {"request_id": f"req-{secrets.token_hex(6)}", "trace_id": secrets.token_hex(12)}
    return json_answer(status, {"status": status, "message": message, **ids})


def _missing() -> Answer:
    return _amperity_error(404, "The requested entity does not exist.")


def _index(found: VendorCollection) -> dict[str, object]:
    made = "2025-07-30T22:16:04.409Z"
    return {"id": found.index_id, "name": found.name, "description": "", "created_at": made, "updated_at": made}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _profile(found: VendorCollection, id: str, attributes: Mapping[str, object]) -> dict[str, object]:
    # Amperity's attributes are strings; nulls are omitted.
    texts = {name: _text(value) for name, value in attributes.items() if value is not None}
    return {"id": id, "index_id": found.index_id, "attributes": texts}


def _page(rows: list[dict[str, object]], query: list[tuple[str, str]], of: str) -> dict[str, object]:
    given = dict(query)
    limit = given.get("limit", "25")
    if not (limit.isascii() and limit.isdigit() and 0 < int(limit) < 10**6):
        raise _Refused(_amperity_error(400, "limit must be a positive integer."))
    if given.get("with_total", "false") not in ("true", "false"):
        raise _Refused(_amperity_error(400, "with_total must be true or false."))
    mark = hashlib.sha256(of.encode()).hexdigest()[:16]
    start = 0
    if "next_token" in given:
        start = _offset(given["next_token"], mark)
    stop = start + int(limit)
    page: dict[str, object] = {"data": rows[start:stop]}
    if stop < len(rows):
        page["next_token"] = _base64(f"{mark}:{stop}".encode())
    if given.get("with_total") == "true":
        page["total"] = len(rows)
    return page


def _offset(token: str, mark: str) -> int:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except ValueError:
        text = ""
    of, _, offset = text.partition(":")
    if of != mark or not offset.isdigit():
        raise _Refused(_amperity_error(400, "next_token is not valid here."))
    return int(offset)
