"""A vendor in a process of its own, whose condition is set from outside: `open`, `set`, `close`."""

from __future__ import annotations

import json
import sys
from typing import Any

from profile_enrich.testing import Exchange, Fault, VendorServer, faults

from ._child import say
from ._profiles import attributes

__all__ = ["CONDITIONS", "KEY"]

CONDITIONS = ("healthy", "2 s slow", "hung", "down", "10 % errors")
KEY = "secret"

HEALTHY = faults.Latency(0.02)


class SomeErrors(Fault):
    """Every tenth answer is a 500, by chance."""

    async def play(self, exchange: Exchange) -> None:
        unlucky = exchange.random.random() < 0.1
        await faults.Latency(0.02, faults.ServerError() if unlucky else None).play(exchange)


FAULTS: dict[str, Fault] = {
    "healthy": HEALTHY,
    "2 s slow": faults.Latency(2.0),
    "hung": faults.Hang(),
    "10 % errors": SomeErrors(),
}


class People(dict[str, Any]):
    """Whoever is asked for is a customer."""

    def get(self, key: str, default: Any = None) -> Any:
        return attributes(key)


def obey() -> None:
    vendor: VendorServer | None = None
    say({"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "open":
            vendor = VendorServer(People(), key=KEY).start()
            vendor.always(HEALTHY)
            say({"base_url": vendor.base_url, "entity": vendor.entity_id})
            continue
        assert vendor is not None
        if command["do"] == "set":
            before = vendor.call_count
            if command["condition"] == "down":
                vendor.close()  # connections are refused from now on
            else:
                vendor.heal()
                vendor.always(FAULTS[command["condition"]])
            say({"calls": before})
        else:
            vendor.close()
            say({"calls": vendor.call_count})


if __name__ == "__main__":
    obey()
