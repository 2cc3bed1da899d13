"""A seeded generator of malformed requests, derived from valid ones, and the checks of their responses.

`make hostile` sends 100,000; `python -m tests.server.hostile 5000 2` sends 5,000 with seed 2. P2, P3: never a
500, never a record or a field that was not asked for or that the key does not see, never a page for a token that is
another's.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from profile_enrich.server import ApiKey, FieldScope, ProfileAPI
from profile_enrich.store import LocalStore

from .helpers import KEYS, LIMITED, ORDERS, SECRET, STRANGER, USERS, Answer, ask, build

__all__ = ["Hostile"]

PARTNER = "the-secret-of-the-partner"
SCOPE = FieldScope(show=frozenset({"id", "n"}), hash=frozenset({"email"}))
IDS = [str(user["id"]) for user in USERS]
_BY_ID = {user["id"]: user for user in USERS}
_STATUSES = {200, 204, 304, 400, 401, 403, 404, 405, 413, 415}
_NOISE = (
    b"", b"\0", b"%00", b"%", b"%zz", b"%ff", b"%2F", b"%252F", b"/", b"//", b"..", b"%2e%2e", b";", b"'", b'"', b" ",
    b"+", b"*", b"\\", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"%ED%A0%80", b"{}", b"[]", b"null", b"-1", b"0", b"1e3",
    b"99999999999999999999", b"\r\n", b"' OR 1=1--", b"$(id)", b"a" * 3000, "é".encode(), "ｕ１".encode(), b"%C3%28",
    b"?", b"#", b"&", b"=", b"record_id", b"limit", b"filter[", b"]", b"next_token",
)  # fmt: skip


@dataclass
class Question:
    """One request, and the generator's expectations of its response."""

    method: str
    path: bytes
    query: list[tuple[bytes, bytes]]
    secret: str | None
    tenant: bytes = b"acme"
    version: bytes = b"2025-07-31"
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    token: tuple[str, bytes] | None = None
    """The page token in it, and what it was given for."""

    def target(self) -> bytes:
        text = b"&".join(name + b"=" + value for name, value in self.query)
        return self.path + (b"?" + text if text else b"")


class Hostile:
    """Send requests to an application that must reject them.

    Args:
        path: a directory for a store.
        seed: of the random numbers.
    """

    def __init__(self, path: Path, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._store = LocalStore(build(path))
        partner = ApiKey.from_secret(PARTNER, workspace="acme", id="k4", fields={"Users": SCOPE})
        self.app = ProfileAPI(self._store, keys=[*KEYS, partner], workspace="acme")
        self.statuses: Counter[int] = Counter()
        self.found = 0
        self._users, self._orders = (self._store.collection(name).index_id.encode() for name in ("Users", "Orders"))
        self._tokens = [self._page_token(query) for query in self._scopes()]

    def close(self) -> None:
        self._store.close()

    @staticmethod
    def _scopes() -> list[list[tuple[bytes, bytes]]]:
        return [[], [(b"filter[tier]", b"gold")], [(b"filter[tier]", b"silver")]]

    def _page_token(self, query: list[tuple[bytes, bytes]]) -> tuple[str, bytes]:
        question = Question("GET", self._profiles(), [*query, (b"limit", b"2")], SECRET)
        return self._ask(question).json["next_token"], b"&".join(b"=".join(pair) for pair in query)

    def _profiles(self) -> bytes:
        return b"/api/indexes/" + self._users + b"/profiles"

    # --- requests ---

    def question(self) -> Question:
        """Return a valid or almost valid request."""
        pick = self._random
        secret = pick.choice([*[SECRET, LIMITED, PARTNER] * 3, STRANGER, "nobody's-secret-at-all", None])
        id = quote(pick.choice([*IDS, "o1", "w", "nobody"]), safe="").encode()
        index = pick.choice([self._users, self._orders])
        entity = pick.choice([b"1", b"2", b"3", b"4", b"01", b"-1"])
        method = pick.choice(["GET"] * 24 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "X"])
        kind = pick.randrange(9)
        if kind <= 1:
            made = Question(method, b"/api/v1/entities/" + entity + b"/record", [(b"record_id", id)], secret)
        elif kind == 2:
            made = Question(method, b"/api/indexes/" + index + b"/profiles/" + id, [], secret)
        elif kind <= 4:
            scope = pick.choice(self._scopes())
            made = Question(method, self._profiles(), [*scope, (b"limit", b"%d" % pick.randrange(-1, 1100))], secret)
            if pick.random() < 0.6:
                made.token = pick.choice(self._tokens)
                made.query.append((b"next_token", quote(made.token[0], safe="").encode()))
            if pick.random() < 0.3:
                made.query.append((pick.choice([b"with_total", b"filter[secret]", b"filter[email]"]), b"true"))
        elif kind == 5:
            place = pick.choice([b"entities/" + entity + b"/records", b"indexes/" + index + b"/profiles"])
            ids = [pick.choice([*IDS, "o1", "nobody", 1, None, ""]) for _ in range(pick.randrange(4))]
            made = Question("POST", b"/api/x/" + place, [], secret, body=json.dumps({"ids": ids}).encode())
        elif kind == 6:
            paths = [b"/api/indexes", b"/api/v1/entities", b"/status", b"/openapi.json", b"/api/indexes/" + index, b"/"]
            made = Question(method, pick.choice(paths), [], secret)
        elif kind == 7:
            form = f"grant_type=client_credentials&client_id=k1&client_secret={quote(secret or '')}"
            made = Question("POST", b"/api/v0/oauth2/token", [], None, body=form.encode())
        else:
            body = b'{"expires-at":"2030-01-01T00:00:00Z"}'
            made = Question("POST", b"/api/v0/admin/api-keys/k1/tokens", [], secret, body=body)
        for _ in range(pick.choice([0, 1, 1, 2, 3])):
            self._spoil(made)
        return made

    def _spoil(self, made: Question) -> None:
        pick = self._random
        kind = pick.randrange(8)
        if kind == 0:
            made.path = self._damaged(made.path)
        elif kind == 1 and made.query:
            at = pick.randrange(len(made.query))
            name, value = made.query[at]
            made.query[at] = (name, self._damaged(value)) if pick.random() < 0.7 else (self._damaged(name), value)
        elif kind == 2 and made.query:
            made.query.append(pick.choice(made.query))
        elif kind == 3:
            made.query.insert(0, (pick.choice(_NOISE), pick.choice(_NOISE)))
        elif kind == 4:
            made.body = self._damaged(made.body)
        elif kind == 5:
            made.tenant = pick.choice([b"", b"other", b"ACME", b"acme ", b"\xff"])
        elif kind == 6:
            made.version = pick.choice([b"", b"2024-01-01", b"2025-07-31x", b"\xff"])
        else:
            made.headers.append((pick.choice([b"authorization", b"amperity-tenant", b"x-amperity-tenant",
                                              b"if-none-match", b"accept-encoding", b"content-type", b"range"]),
                                 pick.choice(_NOISE)))  # fmt: skip

    def _damaged(self, raw: bytes) -> bytes:
        pick = self._random
        at = pick.randrange(len(raw) + 1)
        kind = pick.randrange(5)
        if kind == 0:
            return raw[:at] + pick.choice(_NOISE) + raw[at:]
        if kind == 1:
            return raw[:at] + raw[at + 1 :]
        if kind == 2:
            return raw[:at]
        if kind == 3:
            return raw[:at] + bytes([pick.randrange(256)]) + raw[at + 1 :]
        return raw[:at] + (b"%%%02x" % raw[at] if at < len(raw) else b"%2") + raw[at + 1 :]

    def _ask(self, made: Question) -> Answer:
        headers = [(b"amperity-tenant", made.tenant), (b"api-version", made.version), *made.headers]
        if made.secret is not None:
            headers.append((b"authorization", b"Bearer " + made.secret.encode()))
        return ask(self.app, made.target(), method=made.method, headers=headers, body=made.body)

    # --- answers ---

    def run(self, count: int) -> None:
        """Send the given number of requests.

        Raises:
            AssertionError: a response was wrong.
        """
        for number in range(count):
            made = self.question()
            answer = self._ask(made)
            self.statuses[answer.status] += 1
            problem = self.problem(made, answer)
            assert problem is None, f"request {number}: {problem}\n{made}\n{answer}"

    def problem(self, made: Question, answer: Answer) -> str | None:
        """Return the error of a response, or `None`."""
        if answer.status not in _STATUSES:
            return f"status {answer.status}"
        if answer.status >= 400:
            return None if made.method == "HEAD" else self._bad_envelope(answer)
        if made.secret in (STRANGER, None, "nobody's-secret-at-all") and b"/api/v0/" not in made.path:
            return None if made.path.rstrip(b"/").endswith(b"healthz") else "an answer for somebody without a key"
        if answer.status != 200 or made.method == "HEAD" or "content-encoding" in answer.headers:
            return None
        text = answer.body.decode()
        if made.secret in (LIMITED, PARTNER) and ("planted-order" in text or "Orders" in text):
            return "another entity's data"
        if made.secret == PARTNER and ("@x.example" in text or '"tier"' in text):
            return "a field that the key does not see"
        return self._foreign(made, answer.json)

    @staticmethod
    def _bad_envelope(answer: Answer) -> str | None:
        content = answer.json
        error = content.get("error")
        if isinstance(error, dict):
            return None if set(error) == {"code", "message"} else "a strange envelope"
        if error in ("invalid_client", "invalid_request", "unsupported_grant_type"):
            return None
        return None if content.get("status") == answer.status else "a strange envelope"

    def _foreign(self, made: Question, content: Any) -> str | None:
        segments = made.target().partition(b"?")[0].removesuffix(b"/").split(b"/")
        if segments[-1:] == [b"record"]:
            self.found += 1
            # By the standard library's rules, not the server's.
            asked = [value for name, value in _pairs(made) if name == "record_id"]
            return None if asked == [content["data"]["id"]] else "another record than was asked for"
        if segments[1:3] == [b"api", b"indexes"] and len(segments) == 6:
            self.found += 1
            asked_id = unquote_to_bytes(segments[5]).decode()
            return None if content.get("id") == asked_id else "another profile than was asked for"
        if segments[1:3] == [b"api", b"x"]:
            self.found += 1
            rows = content["data"]
            if [row["id"] for row in rows] != json.loads(made.body)["ids"]:
                return "answers that do not fit the ids"
            records = [(row["id"], row["record"]["id"]) for row in rows if row["found"]]
            return None if all(one == other for one, other in records) else "another record than was asked for"
        if segments[-1:] == [b"profiles"]:
            self.found += 1
            return self._foreign_page(made, content)
        return None

    def _foreign_page(self, made: Question, content: Any) -> str | None:
        pairs = _pairs(made)
        filters = {name[7:-1]: value for name, value in pairs if name.startswith("filter[")}
        for row in content["data"]:
            user = _BY_ID.get(row["id"]) or ORDERS[0]
            if any(str(user.get(name)) != value for name, value in filters.items()):
                return "a profile that does not fit the filter"
        used = [value for name, value in pairs if name == "next_token"]
        if used and made.token is not None:
            same = (
                sorted(f"filter[{name}]={value}" for name, value in filters.items()) == made.token[1].decode().split()
            )
            if used != [made.token[0]] or not same:
                return "a page for a token that was changed, or is of another filter"
        return None


def _pairs(made: Question) -> list[tuple[str, str]]:
    query = made.target().partition(b"?")[2].decode(errors="surrogateescape")
    return parse_qsl(query, keep_blank_values=True, errors="surrogateescape")


def main() -> None:
    """Send as many requests as the command line says."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as directory:
        hostile = Hostile(Path(directory), seed)
        began = time.monotonic()
        hostile.run(count)
        took = time.monotonic() - began
        hostile.close()
    statuses = ", ".join(f"{status}: {number:,}" for status, number in sorted(hostile.statuses.items()))
    sys.stdout.write(
        f"{count:,} requests in {took:.1f} s; {statuses}; {hostile.found:,} answers with records, all right\n"
    )


if __name__ == "__main__":
    main()
