"""Probes with scoped keys and forged webhooks."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import httpx
import uvicorn

from profile_enrich import MemorySource, ProfileClient
from profile_enrich.server.process.sockets import bind, listen, url_of
from profile_enrich.web.invalidation import ProfileInvalidation, sign

from ..helpers import served
from ..test_scopes import HIDDEN, headers_of, scoped_app, seen_of, targets

__all__ = ["scopes", "webhooks"]


def scopes(directory: Path) -> tuple[bool, str]:
    """Every endpoint called with every scope, and responses searched for names and values outside it."""
    app = scoped_app(directory / "scoped.store")
    asked = leaks = 0
    statuses: Counter[int] = Counter()
    with served(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        for who in HIDDEN:
            for method, target, body in targets(app):
                answer = client.request(method, target, headers=headers_of(who), content=body)
                leaks += bool(seen_of(who, target, f"{answer.headers} {answer.text}"))
                statuses[answer.status_code] += 1
                asked += 1
            for entity in (1, 2, 3):
                answer = client.get(f"/api/v1/entities/{entity}/changes", headers=headers_of(who))
                leaks += bool(seen_of(who, "", f"{answer.headers} {answer.text}"))
                asked += 1
    app.close()
    return leaks == 0 and not statuses[
        500
    ], f"{asked} requests with {len(HIDDEN)} scopes, {leaks} responses with hidden data"


SECRET = "the-secret-of-the-webhook"


def webhooks(directory: Path) -> tuple[bool, str]:
    """3,000 forged webhooks, then a valid one sent 50 times concurrently."""
    pick = random.Random(18)
    people = {f"u{n}": {"n": n} for n in range(100)}
    answers: Counter[int] = Counter()

    def forged() -> tuple[dict[str, str], bytes]:
        body = b'{"keys": ["u%d"], "all": true}' % pick.randrange(100)
        headers = sign(SECRET, body)
        change = pick.randrange(6)
        if change == 0:
            body = body.replace(b"u", b"v", 1) + b" " * pick.randrange(3)
        elif change == 1:
            digits = list(headers["X-Profile-Signature"])
            at = pick.randrange(7, len(digits))
            digits[at] = "0" if digits[at] != "0" else "1"
            headers["X-Profile-Signature"] = "".join(digits)
        elif change == 2:
            headers = sign(SECRET, body, int(time.time()) + pick.choice([-1, 1]) * pick.randrange(310, 10**6))
        elif change == 3:
            headers["X-Profile-Timestamp"] = str(int(headers["X-Profile-Timestamp"]) + pick.choice([-1, 1]))
        elif change == 4:
            headers = sign(f"{SECRET}{pick.randrange(9)}", body)
        else:
            del headers[pick.choice(list(headers))]
        return headers, body

    async def attack(url: str, client: ProfileClient) -> tuple[int, int]:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as sender:

            async def post(headers: dict[str, str], body: bytes) -> httpx.Response:
                return await sender.post("/", headers={**headers, "content-type": "application/json"}, content=body)

            for _ in range(60):
                for answer in await asyncio.gather(*(post(*forged()) for _ in range(50))):
                    answers[answer.status_code] += 1
            kept = sum(client.peek(key) is not None for key in people)
            body = b'{"all": true}'
            headers = sign(SECRET, body)
            same = await asyncio.gather(*(post(headers, body) for _ in range(50)))
            return kept, sum(not answer.json()["repeated"] for answer in same)

    async def whole() -> tuple[int, int]:
        async with ProfileClient(MemorySource(people)) as client:
            for key in people:
                await client.get(key)
            with_server = uvicorn.Config(ProfileInvalidation(client, secret=SECRET), log_level="critical")
            server = uvicorn.Server(with_server)
            listener = bind("127.0.0.1", 0)
            listen(listener)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                return await attack(url_of(listener), client)
            finally:
                server.should_exit = True
                await running
                listener.close()

    kept, carried_out = asyncio.run(whole())
    fine = (set(answers), kept, carried_out) == ({401}, 100, 1)
    return (
        fine,
        f"{answers.total():,} forged: {dict(answers)}, {100 - kept} profiles dropped; 50 valid copies applied"
        f" {carried_out} time",
    )
