"""The promises of the package and the tests that prove them. `python -m tools.contract` writes docs/contract.md."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
PAGE = TESTS.parent / "docs" / "contract.md"

SECTIONS: dict[str, tuple[str, str]] = {
    "L": ("The lookup core", "cache, single flight, limits"),
    "A": ("The ASGI middleware", "scope and protocol, lifecycle, failing open, HTTP caching, privacy, frameworks"),
    "S": ("The shared second level", "Valkey or Redis, with a backplane"),
    "P": ("The embedded Profile API", "the server"),
    "E": ("Enrichment in pipelines", "records in, enriched records out"),
    "D": ("The database store", "PostgreSQL instead of the local store"),
    "R": ("The relay", "the embedded Profile API in front of a vendor"),
    "W": ("Webhooks and the console", "signed invalidation, sign-ins of the example console"),
}

LINES: dict[str, str] = {
    "L1": "10,000 concurrent gets of one cold key make one upstream call, also if it fails; no error outlives "
    "its load.",
    "L2": "Cancelling one, some or all waiters never cancels the load; the others get the result.",
    "L3": "A slow upstream converges: callers with a small budget share one load, and later ones hit. A load "
    "that hangs frees its key at the deadline.",
    "L4": "Between `fresh_until` and `stale_until`, a get returns at once and starts at most one refresh; after"
    " `stale_until`, no stale data is served, except under L5.",
    "L5": "While the upstream fails, each key makes at most one call per throttle period; stale data is marked,"
    " and is served until `max_stale` at the latest.",
    "L6": "After an invalidation during a load, no later get returns the result of that load; a superseded load"
    " never replaces the newer entry.",
    "L7": "Missing profiles have their own `ttl` and their own limit of entries; an upstream `max-age` sets the"
    " `ttl` within bounds, `no-store` is not cached, `304` renews the entry.",
    "L8": "Entries and bytes stay bounded; the simultaneous expiry of many entries does not block the event "
    "loop; expiry times have jitter; expired personal data is removed without a lookup of its key.",
    "L9": "No caller can change or see the data of another one: values are frozen, keys include source and "
    "tenant, contexts are fresh; this holds across threads and event loops.",
    "L10": "Circuit breaker, retries and rate limits: a half-open breaker permits one call, retries are at most "
    "a tenth of the calls, `Retry-After` is honoured, rate and concurrent calls are bounded, and no page "
    "is queued.",
    "L11": "Each get has one status; counters and hooks receive every get, and never a value.",
    "L12": "A fresh hit costs less than 1 µs of CPU more than the dictionary lookup that it contains.",
    "L13": "Lookups of different keys within one batch window become one call if the source supports batches.",
    "L14": "Closing leaves no task, no socket and no warning.",
    "A1": "Only `http` and `websocket` scopes are handled.",
    "A2": "Every form of response start works; only the start is changed, and no part of a response is delayed.",
    "A3": "The profile of a WebSocket is available before `accept`.",
    "A4": "Installed twice with the same configuration, the middleware makes one lookup; with another "
    "configuration, the inner one makes its own lookup under its own consent, and the outer profile is "
    "restored afterwards. `exclude` matches the documented path under `Mount` and `root_path`.",
    "A5": "A missing `state` is created; the request's own `state` is changed in place; a shared one is copied,"
    " so that nothing leaks into it.",
    "A6": "The middleware keeps no data of a request; an exception of the application is re-raised as the same object.",
    "A7": "The middleware is pure ASGI: it starts no task for the application.",
    "A8": "It works with and without lifespan, under `Mount`, after a failed startup, and with a bare test client.",
    "A9": "Nothing that is bound to an event loop or a socket is made before a fork or used after one.",
    "A10": "The page is served whatever the source, identity function, consent function or cache does; only "
    "`require…` raises.",
    "A11": "An upstream that hangs delays a page by the budget at most, and not at all while the breaker is open.",
    "A12": "Outside of `SessionMiddleware`, the middleware logs one warning with the correct order.",
    "A13": "A response whose handler reads the profile or takes it as a dependency has `Vary` and "
    "`Cache-Control: private`; any other response is byte-identical.",
    "A14": "`Vary` and `Cache-Control` are merged; directives that allow shared caching are removed, with a warning.",
    "A15": "Reading the identity does not mark the session as accessed; reading the profile does.",
    "A16": "The first read of a profile after the response has started is logged, with the remedy.",
    "A17": "Consent is decided before the lookup; an error of the consent function counts as denied.",
    "A18": "Logs, `repr`s, exceptions, metrics and `Server-Timing` contain no personal data and no secret.",
    "A19": "`Server-Timing` is off by default.",
    "A20": "The dependencies work with WebSockets, overrides and OpenAPI; other ASGI frameworks work by wrapping"
    " the application.",
    "A21": "The results under uvicorn, Granian and Hypercorn are the same.",
    "A22": "A response cache inside the framework never serves one person's page to another, in any order of "
    "middleware.",
    "A23": "After the request has left the middleware, also by an exception, error handlers and outer middleware"
    " read an empty profile.",
    "A24": "The `repr` of a profile differs between people and contains no value or id; error reports contain no"
    " value.",
    "A25": "A configuration value that is `None`, empty or of the wrong type is refused when the object is made.",
    "A26": "A component that cannot work in its place in the application says so once.",
    "A27": "A stall of this process (frozen process, blocked loop, closed idle connection) never counts "
    "as a failure of the source.",
    "A29": "A client counts its owners; the shutdown of one application closes no client that another one uses.",
    "S1": "No value outlives an acknowledged invalidation (of a key, a tag, everything; an overlay, a `rekey`) "
    "in any process, including one that was stopped or disconnected, or that missed a message.",
    "S2": "The second level cannot make lookups fail: while it is down, slow, empty or corrupt, lookups work as"
    " without it, and it recovers without a restart.",
    "S3": "Keys on the server are HMACs; values are encrypted and bound to their key; secrets can be rotated.",
    "S4": "A new process reads the profiles that other processes have loaded.",
    "S5": "Many processes make one upstream call for a key; if the process that makes it dies, another one "
    "takes over; no page waits longer than its budget.",
    "S6": "Stale and negative entries, tags and conditional requests work across processes.",
    "S7": "A process reads a value of another process as soon as its write was acknowledged.",
    "S8": "An erasure removes the stored values and is acknowledged.",
    "A28": "A cancelled wait for the profile has no effect on the next caller, which gets the profile.",
    "A30": "An identity that changes within a request can be looked up again; a sign-out empties the old profile.",
    "A31": "A user's function that hangs, blocks the loop or raises `CancelledError` is bounded in time, counts "
    "as a denial, and is logged once.",
    "P1": "Responses follow the vendors' own API descriptions.",
    "P2": "A request without a valid key gets 401 or 403, which does not reveal what exists.",
    "P3": "Arbitrary bytes as id, path, filter, token or limit get a 4xx in the vendor's envelope, never "
    "another record.",
    "P4": "A build, full or incremental, is atomic; after a kill at any point the old data is complete.",
    "P5": "Paging returns each record that stays exactly once while refreshes run.",
    "P6": "The server listens on 127.0.0.1 by default and requires a key, except with `--no-auth`.",
    "P7": "No endpoint returns data outside of the key's scopes; each id of a batch counts against the rate, "
    "over all workers together; responses vary on the key.",
    "P8": "Without a key, a client can use only bounded memory, descriptors and time, and health checks are "
    "always answered; one key cannot use all streams.",
    "P9": "A worker that does not start or that dies blocks neither the others nor the supervisor; SIGTERM, "
    "SIGINT and SIGHUP end or reload within 2 s, with 128 + the signal's number.",
    "P10": "A damaged file never returns a wrong record with 200: the record is 503 and logged, also where the damage "
    "hides it in SQLite's index, and the process continues.",
    "W1": "A signed webhook is executed once, also if it arrives many times at once; a failed one can be sent again.",
    "W2": "A webhook that is ambiguous or malformed is refused, and invalidates nothing.",
    "W3": "Sign-in limits of the console: a forged address does not evade them, and failures from other "
    "addresses do not lock out a user.",
    "P11": "A refresh that would lose more than a stated share of records, or change a column's type, keeps the "
    "served data and fails visibly.",
    "E1": "The output has as many records as the input, in order or not, whatever fails: each with its profile "
    "or with a reason. No record is lost or duplicated.",
    "E2": "The number of calls is the number of different keys (or of batches of them), not of records; memory "
    "does not depend on the length of the input; a slow consumer slows the producer.",
    "E3": "The source's rate limit is kept: pipelines wait for it, pages never do.",
    "E4": "Pipelines, middleware and commands share one lookup core: cache, loads, limits and counters.",
    "E5": "An input that changes while it is read ends the run without an output.",
    "E6": "A run deletes, truncates or replaces only files that it made, or that the user named for that; never"
    " a device, a pipe, a link, a directory or an input.",
    "E7": "One output has one writer during the whole run.",
    "E8": 'A run in which nothing matched (no key, no such field, no such id) is not a success; "no such '
    'profile" is only reported if the vendor says so.',
    "E9": "Errors of other libraries become ours, with file, row, column and remedy; one bad value is one "
    "rejected row and does not end the run.",
    "E10": "A pipeline waits while the circuit breaker is open; no record fails without a call.",
    "D1": "One conformance suite runs against the local store and PostgreSQL: records, pages, tokens and "
    "responses are the same, byte for byte.",
    "D2": "A build or refresh in the database is one transaction: a kill at any point leaves nothing behind; "
    "paging returns each record once; a record that is written during a refresh is kept.",
    "D3": "Concurrent writes of single records lose nothing; a write that waits too long fails with an error.",
    "D4": "A change reaches every process at once by a notification, or within `check_every` behind a pooler; "
    "the change feed announces it.",
    "D5": "Connections and waits are bounded: an exhausted pool, a slow statement or a frozen server delays a "
    "request by its time limit at most.",
    "D6": "The user's own tables are only read, with the rights of the role: row-level security applies, a "
    "missing index is reported with the statement that creates it, and numbers keep every digit.",
    "D7": "Reads go to any replica; a record that was just written, or that a replica does not have yet, is "
    "read from the primary.",
    "D8": "If the primary dies and a replica is promoted, reads continue, and none returns an older record than"
    " was acknowledged.",
    "D9": "`sslmode=verify-full` refuses the certificate of another server.",
    "R1": "A record that is missing or too old in the mirror is requested once for all waiting requests, "
    "written, and served from the mirror.",
    "R2": "Every endpoint that reads a record fills it first; a request without permission makes no call to the"
    " vendor.",
    "R3": "A vendor that is slow, wrong or down changes no mirrored record, and delays a request by its budget "
    "at most; a record that was never mirrored is then 503, not 404.",
    "R4": "When the vendor shuts down, no mirrored record is lost; URLs, keys and entity numbers stay the same.",
    "R5": "An Amperity index is mirrored by paging, a Census entity from a list of ids; an interrupted run can "
    "be resumed.",
    "R6": "A comparison queries both sides and counts differences by attribute; neither its output nor its "
    "errors contain an id or a value.",
    "R7": "A test follows the page on moving off the hosted API to the letter: mirror, compare, switch, fill "
    "from the warehouse, with a vendor that fails and is then switched off.",
}

ELSEWHERE: dict[str, str] = {
    "L12": "measured by `make bench`, side by side with others: time is benchmarked, not tested",
}
"""Lines that no test can prove, and their proof."""


@functools.cache
def proofs() -> dict[str, list[str]]:
    """Return the tests of each line: those with its number in their names."""
    found: dict[str, list[str]] = {line: [] for line in LINES}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for number in re.findall(r"(?<![A-Za-z0-9])([LAPESDRW]\d+)(?=_)", node.name.replace("test_", "_", 1)):
                    found.setdefault(number, []).append(
                        f"{path.relative_to(TESTS).with_suffix('').as_posix()}::{node.name}"
                    )
    return found


def page() -> str:
    """Return the page as Markdown."""
    found = proofs()
    text = [
        "# The contract",
        "",
        "The promises of the package. Each line has tests with its number in their names: `pytest -k L2_` runs those of "
        "line L2. This page is written by `python -m tools.contract`.",
    ]
    for letter, (title, about) in SECTIONS.items():
        text += ["", f"## {title}", "", f"*{about}*", "", "| line | promise | proved by |", "|---|---|---|"]
        for line, promise in LINES.items():
            if line[0] != letter:
                continue
            files: dict[str, int] = {}
            for test in found[line]:
                name = test.split("::")[0]
                files[name] = files.get(name, 0) + 1
            tests = ", ".join(f"`{name}` ({count})" for name, count in sorted(files.items()))
            text.append(f"| {line} | {promise} | {tests or ELSEWHERE.get(line, '**nothing**')} |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
