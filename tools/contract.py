"""What the package promises, and which tests prove it. `python -m tools.contract` writes docs/contract.md."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
PAGE = TESTS.parent / "docs" / "contract.md"

SECTIONS: dict[str, tuple[str, str]] = {
    "L": ("The lookup core", "cache, flights, limits"),
    "A": ("The ASGI middleware", "scope and protocol, lifecycle, failing open, HTTP caching, privacy, frameworks"),
    "S": ("The shared second level", "Valkey or Redis, with a backplane"),
    "P": ("The embedded Profile API", "the server"),
    "E": ("Enrichment in pipelines", "records in, enriched records out"),
    "D": ("The database store", "PostgreSQL in the place of the local store"),
    "R": ("The relay", "the embedded Profile API in front of a vendor"),
    "W": ("Webhooks and the console", "signed invalidation, sign-ins of the example console"),
}

LINES: dict[str, str] = {
    "L1": "10,000 concurrent gets of one cold key make one upstream call, also when it fails; no error outlives its load.",
    "L2": "Cancelling one, any or all waiters never cancels the load; the others get the result.",
    "L3": "A slow upstream converges: callers with a small budget share one load, and later ones hit. A hung one frees "
    "its key by the deadline.",
    "L4": "Between the soft and the hard expiry a get returns at once and starts at most one refresh; after the hard "
    "expiry stale data is not served, except under L5.",
    "L5": "While the upstream fails, at most one call a key a throttle period; stale data is marked, and ends with "
    "`max_stale`.",
    "L6": "After an invalidation during a load, no later get sees what that load brings; a superseded load never touches "
    "the newer entry.",
    "L7": "Missing profiles have their own time and quota; an upstream `max-age` sets the time within bounds, `no-store` "
    "is not kept, `304` renews.",
    "L8": "Entries and bytes stay bounded; nothing blocks the loop when many entries expire together; jitter; expired "
    "personal data goes although nothing asks for it.",
    "L9": "Nobody can change or see what is another's: frozen values, keys with source and tenant, fresh contexts, "
    "threads, event loops.",
    "L10": "Circuit breaker, retries and rate limits: a half-open breaker lets one through, retries stay within a tenth, `Retry-After` is honoured, rate "
    "and calls in flight are bounded, no page is queued.",
    "L11": "Each get reports one status; counters and hooks see them all, and never see values.",
    "L12": "A fresh hit costs under 1 µs of CPU more than the dictionary it stands on.",
    "L13": "Lookups of different keys within one window become one call where the source has a batch endpoint.",
    "L14": "Closing leaves no task, no socket and no warning.",
    "A1": "Only `http` and `websocket` scopes are handled.",
    "A2": "Any response start works; only it is touched; nothing is held back.",
    "A3": "A WebSocket has its profile before `accept`.",
    "A4": "Installed twice with the same configuration, one lookup; with another one, a lookup of its own under its own "
    "consent, and the outer value is back afterwards. Exclusion paths follow the documented path under `Mount` and "
    "`root_path`.",
    "A5": "A missing `state` works; the request's own is written in place; a shared one is copied, and leaks nothing.",
    "A6": "Nothing of a request stays on the middleware; application exceptions pass as the same object.",
    "A7": "Pure ASGI.",
    "A8": "With and without lifespan, under `Mount`, with a failing startup, with a bare test client.",
    "A9": "Nothing bound to a loop or a socket exists before a fork, or is carried over one.",
    "A10": "Whatever source, identity, consent or cache do, the page is served; only what says `require` raises.",
    "A11": "A hung upstream delays a page by the budget at most, and by nothing while the breaker is open.",
    "A12": "Outside of `SessionMiddleware` it warns once and says how to order them.",
    "A13": "Profile read, or taken as a dependency ⇒ `Vary` and `Cache-Control: private`; not read ⇒ byte-identical.",
    "A14": "`Vary` and `Cache-Control` are merged; what invites shared caches goes, with a warning.",
    "A15": "Finding the identity does not mark the session as accessed; reading the profile does.",
    "A16": "A profile first read after the response started is logged, with the remedy.",
    "A17": "Consent is decided before the lookup; failing means denied.",
    "A18": "No personal data or secret in logs, `repr`s, exceptions, metrics or `Server-Timing`.",
    "A19": "`Server-Timing` is off by default.",
    "A20": "Dependencies work for WebSockets, overrides and OpenAPI; frameworks work by wrapping.",
    "A21": "uvicorn, Granian and Hypercorn serve the same results.",
    "A22": "A response cache inside the framework never serves one person's page to another, in any order of middleware.",
    "A23": "After the request has left the middleware, also by exception, error handlers and middleware outside read an "
    "empty profile.",
    "A24": "The `repr` of a profile differs between people and holds no value or id; error reports find no value.",
    "A25": "A configuration value that is `None`, empty or of the wrong type is refused at construction.",
    "A26": "What cannot work where it stands says so once.",
    "A27": "A standstill of our own (frozen process, blocked loop, idle connection closed) never counts against the source.",
    "A29": "Owners of a client are counted; the end of one application closes nothing that another uses.",
    "S1": "No value outlives an acknowledged invalidation (of a key, a tag, everything; an overlay, a `rekey`) in any "
    "process, also in one that is stopped, cut off or missed a message.",
    "S2": "The second level can only help: down, slow, flushed or full of garbage, lookups go on as without it, and it "
    "recovers by itself.",
    "S3": "Names on the server are HMACs, values are encrypted and bound to their name; secrets can be rotated.",
    "S4": "A process that starts finds what others have loaded.",
    "S5": "Many processes make one upstream call for a key; when the one that makes it dies, the next takes over; no page "
    "waits longer than its budget.",
    "S6": "Stale and negative entries, tags and conditional requests work across processes.",
    "S7": "A process reads what another one wrote as soon as that was acknowledged.",
    "S8": "An erasure removes what is stored, and is acknowledged.",
    "A28": "A cancelled wait for the profile spoils nothing: the next caller gets it.",
    "A30": "An identity that changes within the request can be looked up again; a sign-out empties the old profile.",
    "A31": "A function of the user's that hangs, blocks the loop or raises `CancelledError` costs its bound, counts as "
    "no, and is logged once.",
    "P1": "Answers follow the vendors' own descriptions.",
    "P2": "Without the right key: 401 or 403, and nothing learned about what exists.",
    "P3": "Any bytes as id, path, filter, token or limit: a 4xx in the vendor's envelope, never another record.",
    "P4": "A build, full or incremental, is atomic; killed at any point it leaves the old data whole.",
    "P5": "Paging sees each record that stays exactly once while refreshes run.",
    "P6": "It listens on 127.0.0.1 unless told otherwise, and wants a key unless told `--no-auth`.",
    "P7": "No endpoint shows a key anything outside of its scopes; each id of a batch counts against the rate, over all "
    "workers together; answers vary on the key.",
    "P8": "Without a key: bounded memory, descriptors and time, and a place for health checks; one key cannot take all "
    "streams.",
    "P9": "A worker that cannot start or dies hangs neither the others nor the supervisor; SIGTERM, SIGINT and SIGHUP end "
    "or reload within 2 s, with 128 + the signal's number.",
    "P10": "A damaged file never yields a wrong record with 200: the record is 503, said in the log (404 where the damage "
    "hides it in SQLite's index); the process lives.",
    "W1": "A signed webhook is carried out once, also when it arrives many times at once; what failed can be sent again.",
    "W2": "A webhook that cannot be read in one way only is refused, and drops nothing.",
    "W3": "Sign-ins of the console: no made-up address evades the limits, and no failures from elsewhere lock an owner out.",
    "P11": "A refresh that would lose more than a stated share of records, or change a column's type, keeps what is "
    "served and fails visibly.",
    "E1": "As many records come out as went in, in order or not, whatever fails: each with its profile, or with a stated "
    "reason. Nothing lost, nothing doubled.",
    "E2": "Calls are as many as different keys (or batches of them), never as records; memory is bounded whatever the "
    "length of the input; a slow consumer slows the producer.",
    "E3": "The source's rate limit is kept: pipelines wait, pages never do.",
    "E4": "One lookup core: pipelines, middleware and commands share cache, loads, limits and counters.",
    "E5": "An input that changes while it is read ends the run, and no output appears.",
    "E6": "No path is deleted, truncated or replaced that the run did not make, unless the user said so for that path; "
    "never a device, a pipe, a link, a directory or an input.",
    "E7": "One output has one writer for the whole of its life.",
    "E8": 'What matched nothing (no key, no such field, no such id) is not success; "no such profile" is only what the vendor '
    "says of a record.",
    "E9": "What a library raises becomes our error with file, row, column and remedy; a bad value is one reject, not the end.",
    "E10": "A circuit breaker makes pipelines wait; no record is given up because of it without having been asked for.",
    "D1": "One conformance suite holds for the local store and for PostgreSQL: the same records, pages, tokens and answers, "
    "byte for byte.",
    "D2": "A build or refresh in the database is one transaction: killed at any point it leaves nothing behind; paging sees "
    "each record once; a record written meanwhile is kept.",
    "D3": "Single records: writers at once lose nothing; one that waits too long says so.",
    "D4": "A change reaches every process at once by notification, and within `check_every` where a pooler stands between; "
    "the change feed announces it.",
    "D5": "Connections and waits are bounded: a full pool, a slow statement and a frozen server cost their time limit and "
    "no more.",
    "D6": "The user's own tables are only read, with the rights of the role: row-level security holds, a missing index is "
    "named with the statement that creates it, no digit is lost.",
    "D7": "Reads go to any replica; what was just written, and whatever a replica does not have yet, is read from the "
    "primary.",
    "D8": "When the primary dies and a replica is promoted, reads go on and none is older than what was acknowledged.",
    "D9": "`sslmode=verify-full` refuses another server's certificate.",
    "R1": "What the mirror lacks, or has too old, is asked for once for all who wait, written, and served from the mirror.",
    "R2": "Every endpoint that reads a record fills it first; who may not read costs the vendor nothing.",
    "R3": "A vendor that is slow, wrong or gone changes nothing that is mirrored, and costs a request its budget; what "
    "was never mirrored is 503 then, not 404.",
    "R4": "The vendor's end loses nothing that was mirrored; URLs, keys and entity numbers stay.",
    "R5": "An Amperity index is mirrored by paging, a Census entity from a list of ids; a run that broke off goes on.",
    "R6": "A comparison asks both and counts by attribute; neither its output nor its errors hold an id or a value.",
    "R7": "The page on moving off the hosted API is followed to the letter: mirror, compare, switch, fill from the warehouse, "
    "with a vendor that fails and is then switched off.",
}

ELSEWHERE: dict[str, str] = {
    "L12": "measured by `make bench`, side by side with others: time is benchmarked, not tested",
}
"""Lines that no test can prove, and what does."""


@functools.cache
def proofs() -> dict[str, list[str]]:
    """The tests of each line: those with its number in their name."""
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
    """The page, in Markdown."""
    found = proofs()
    text = [
        "# The contract",
        "",
        "What the package promises. Each line has tests with its number in their names: `pytest -k L2_` runs those of "
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
