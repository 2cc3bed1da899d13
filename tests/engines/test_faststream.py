"""The FastStream middleware, on the in-memory test brokers of Kafka, NATS, RabbitMQ and Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from profile_enrich import MemorySource, Profile, ProfileClient, ProfileKey, Reason, Status
from profile_enrich.errors import ConfigurationError
from profile_enrich.sources.census import CensusSource
from profile_enrich.testing import VendorServer, faults

from . import needs
from .conftest import KEY, UNKNOWN, Job, lookups, run_page, usable

needs("faststream", "faststream")

from faststream import Context, FastStream, TestApp  # noqa: E402
from faststream.confluent import KafkaBroker as ConfluentBroker  # noqa: E402
from faststream.confluent import TestKafkaBroker as ConfluentTest  # noqa: E402
from faststream.kafka import KafkaBroker, TestKafkaBroker  # noqa: E402
from faststream.nats import NatsBroker, TestNatsBroker  # noqa: E402
from faststream.rabbit import RabbitBroker, TestRabbitBroker  # noqa: E402
from faststream.redis import RedisBroker, TestRedisBroker  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from profile_enrich.pipeline.faststream import MessageProfile, MessageProfiles, from_header  # noqa: E402

BROKERS = {
    "kafka": (KafkaBroker, TestKafkaBroker),
    "confluent": (ConfluentBroker, ConfluentTest),
    "nats": (NatsBroker, TestNatsBroker),
    "rabbit": (RabbitBroker, TestRabbitBroker),
    "redis": (RedisBroker, TestRedisBroker),
}


class Order(BaseModel):
    user_id: str
    amount: float


@pytest.fixture
async def client(vendor: VendorServer) -> AsyncIterator[ProfileClient]:
    source = CensusSource(KEY, entity=vendor.entity_id, base_url=vendor.base_url)
    async with ProfileClient(source, deadline=1.0, ttl=3600, negative_ttl=3600) as profiles:
        yield profiles


def gold() -> ProfileClient:
    return ProfileClient(MemorySource({"u1": {"tier": "gold"}, "7": {"tier": "seven"}}))


async def handled(middleware: MessageProfiles, *messages: Any, headers: dict[str, str] | None = None) -> list[Profile]:
    """Return what a handler receives for each message."""
    seen: list[Profile] = []
    broker = NatsBroker(middlewares=[middleware])

    @broker.subscriber("orders")
    async def handle(body: Any, profile: MessageProfile) -> None:
        seen.append(profile)

    async with TestNatsBroker(broker):
        for message in messages:
            await broker.publish(message, "orders", headers=headers)
    return seen


@pytest.mark.parametrize("name", BROKERS)
async def test_each_brokers_handler_gets_the_profile_beside_its_own_model(name: str) -> None:
    make, test = BROKERS[name]
    seen: list[tuple[Order, Any]] = []
    broker = make(middlewares=[MessageProfiles(client=gold(), key="user_id")])

    @broker.subscriber("orders")
    async def handle(order: Order, profile: MessageProfile) -> None:
        seen.append((order, profile.get("tier", "guest")))

    async with test(broker):
        await broker.publish({"user_id": "u1", "amount": 2.5}, "orders")
        await broker.publish({"user_id": "stranger", "amount": 1}, "orders")
    assert seen == [(Order(user_id="u1", amount=2.5), "gold"), (Order(user_id="stranger", amount=1), "guest")]


async def test_a_synchronous_handler_and_another_name_work_too() -> None:
    seen: list[Any] = []
    broker = RabbitBroker(middlewares=[MessageProfiles(client=gold(), key=from_header("user-id"), name="customer")])

    @broker.subscriber("orders")
    def handle(body: str, customer: Annotated[Profile, Context("customer")]) -> None:
        seen.append(customer["tier"])

    async with TestRabbitBroker(broker):
        await broker.publish("free text", "orders", headers={"user-id": "u1"})
    assert seen == ["gold"]


@pytest.mark.parametrize("key", ["user_id", from_header("user-id")])
async def test_a_batch_gets_a_list_of_profiles_in_its_order(key: Any) -> None:
    seen: list[Any] = []
    broker = KafkaBroker(middlewares=[MessageProfiles(client=gold(), key=key)])

    @broker.subscriber("orders", batch=True)
    async def handle(body: list[dict[str, Any]], profile: Annotated[list[Profile], Context("profile")]) -> None:
        seen.extend(each.get("tier") for each in profile)

    async with TestKafkaBroker(broker):
        await broker.publish_batch({"user_id": "u1"}, {"user_id": 7}, {}, topic="orders", headers={"user-id": "u1"})
    assert seen == (["gold", "seven", None] if key == "user_id" else ["gold"] * 3)


@pytest.mark.parametrize("value", [["u1"], [], ["u1", "u2"], {"id": "u1"}, [["u1"]], True])
async def test_E9_a_field_that_holds_no_key_gives_one_profile(value: Any) -> None:
    """E9: a message with a list in the field is not a batch."""
    (profile,) = await handled(MessageProfiles(client=gold(), key="user_id"), {"user_id": value})
    assert isinstance(profile, Profile)
    assert profile.reason is Reason.UNAVAILABLE


async def test_what_a_key_may_be() -> None:
    async def asynchronous(message: Any) -> ProfileKey:
        await asyncio.sleep(0)
        return ProfileKey("u1")

    messages = [{"user_id": "u1"}, {"user_id": 7}, {"user_id": None}, {}, {"user_id": ""}, {"user_id": 1.5}, "text"]
    seen = await handled(MessageProfiles(client=gold(), key="user_id"), *messages)
    assert [profile.get("tier") for profile in seen] == ["gold", "seven", None, None, None, None, None]
    assert [profile.reason for profile in seen[2:]] == [
        Reason.ANONYMOUS,
        Reason.ANONYMOUS,
        Reason.ANONYMOUS,
        Reason.UNAVAILABLE,
        Reason.ANONYMOUS,
    ]
    assert (await handled(MessageProfiles(client=gold(), key=asynchronous), "x"))[0]["tier"] == "gold"


async def test_A10_whatever_the_key_function_does_the_message_is_handled(caplog: pytest.LogCaptureFixture) -> None:
    def broken(message: Any) -> str:
        raise KeyError(f"planted {message.body}")

    async def hangs(message: Any) -> str:
        await asyncio.sleep(30)
        return "u1"

    with caplog.at_level(logging.ERROR, "profile_enrich"):
        seen = await handled(MessageProfiles(client=gold(), key=broken), "planted-body", "planted-body")
    assert [profile.reason for profile in seen] == [Reason.UNAVAILABLE] * 2
    (said,) = [record.getMessage() for record in caplog.records if record.name == "profile_enrich"]
    assert "KeyError" in said
    assert "planted-body" not in said
    (late,) = await handled(MessageProfiles(client=gold(), key=hangs, budget=0.02), "x")
    assert late.status is Status.TIMEOUT


@pytest.mark.parametrize(
    "arguments",
    [{"client": None}, {"key": ""}, {"key": 3}, {"budget": -1}, {"name": "no name"}, {"name": 3}],
)
def test_a_mistake_is_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        MessageProfiles(**{"client": gold(), "key": "user_id", **arguments})
    with pytest.raises(ConfigurationError, match="header"):
        from_header("")


async def test_the_client_is_closed_with_the_application() -> None:
    client = gold()
    broker = NatsBroker(middlewares=[MessageProfiles(client=client, key="user_id")])
    app = FastStream(broker, lifespan=client.lifespan)
    async with TestNatsBroker(broker), TestApp(app):
        assert client.health().closed is False
    assert client.health().closed is True


# --- against the vendor -------------------------------------------------------------------------------------------


async def test_E2_E4_5000_messages_get_what_the_core_says_with_one_call_a_key(
    job: Job, vendor: VendorServer, client: ProfileClient
) -> None:
    seen = await handled(MessageProfiles(client=client, key="user_id", budget=None), *job.records)
    assert len(seen) == len(job.records) == 5_000
    for record, profile in zip(job.records, seen, strict=True):
        key = record.get("user_id")
        expected = job.profiles.get(str(key), {}) if usable(key) else {}
        assert profile.as_dict() == expected
    assert lookups(vendor) == len(job.keys)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (faults.ServerError(), Status.ERROR, "source_unavailable"),
        (faults.RateLimited(retry_after=30), Status.ERROR, "source_rate_limited"),
        (faults.Hang(), Status.TIMEOUT, "budget_exceeded"),
        (faults.Garbage(), Status.ERROR, "source_response"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, faults.Fault) else str(value),
)
async def test_A11_a_fault_leaves_the_profile_empty_and_the_message_handled(
    vendor: VendorServer, client: ProfileClient, fault: faults.Fault, status: Status, code: str
) -> None:
    vendor.always(fault)
    began = asyncio.get_running_loop().time()
    budget = 0.1 if isinstance(fault, faults.Hang) else 30.0
    (profile,) = await handled(MessageProfiles(client=client, key="user_id", budget=budget), {"user_id": "1"})
    assert asyncio.get_running_loop().time() - began < 20
    assert (profile.found, profile.reason, profile.status) == (False, Reason.UNAVAILABLE, status)
    assert profile.error is not None
    assert profile.error.code == code
    vendor.heal()
    vendor.release()


async def test_a_missing_profile_is_not_an_error(vendor: VendorServer, client: ProfileClient) -> None:
    (profile,) = await handled(MessageProfiles(client=client, key="user_id"), {"user_id": UNKNOWN + "1"})
    assert (profile.reason, profile.error) == (Reason.NOT_FOUND, None)


async def test_a_handler_that_fails_is_left_to_the_broker() -> None:
    broker = NatsBroker(middlewares=[MessageProfiles(client=gold(), key="user_id")])

    @broker.subscriber("orders")
    async def handle(body: Any, profile: MessageProfile) -> None:
        raise ZeroDivisionError

    async with TestNatsBroker(broker):
        with pytest.raises(ZeroDivisionError):
            await broker.publish({"user_id": "u1"}, "orders")


def test_the_page_of_the_documentation_runs() -> None:
    run_page(Path("docs/faststream.md"))
