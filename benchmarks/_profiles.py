"""The profiles that all benchmarks look up: JSON as a vendor would send it."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["attributes", "flat", "payload"]

_PRODUCTS = ("espresso machine", "hiking boots", "rain jacket", "desk lamp", "travel mug", "wool socks", "tent")


def attributes(key: str, kilobytes: float = 1.0) -> dict[str, Any]:
    """A customer: some scalars, then purchases until the JSON has about so many KB (of 1,024 bytes)."""
    customer: dict[str, Any] = {
        "id": key,
        "first_name": "Ada",
        "last_name": f"Number {key}",
        "email": f"{key}@example.test",
        "tier": "gold",
        "lifetime_value": 1284.5,
        "orders": 17,
        "subscribed": True,
        "churn_risk": 0.07,
        "segments": ["outdoor", "coffee", "returning"],
        "purchases": [],
    }
    size = len(json.dumps(customer))
    while size < kilobytes * 1024 - 60:
        number = len(customer["purchases"])
        item = {
            "sku": f"SKU-{number:05d}-{key}",
            "name": _PRODUCTS[number % len(_PRODUCTS)],
            "price": 9.99 + number,
            "on": f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
        }
        size += len(json.dumps(item)) + 2
        customer["purchases"].append(item)
    return customer


def flat(key: str) -> bytes:
    """A customer of 14 attributes and some 260 bytes, as JSON: what most warehouses' tables have."""
    number = int(key[1:])
    return json.dumps(
        {
            "id": key,
            "first_name": ("Ada", "Bo", "Cleo", "Dan")[number % 4],
            "last_name": ("Smith", "Jones", "Lee")[number % 3],
            "email": f"{key}@example.test",
            "tier": ("gold", "silver")[number % 2],
            "city": ("Berlin", "Paris", "Lyon")[number % 3],
            "country": ("DE", "FR")[number % 2],
            "language": "en",
            "segment": ("outdoor", "coffee")[number % 2],
            "last_order": f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
            "lifetime_value": number % 5000 + 0.5,
            "orders": number % 60,
            "subscribed": True,
            "churn_risk": number % 100 / 100,
        }
    ).encode()


def payload(key: str, kilobytes: float = 1.0) -> bytes:
    """The same as JSON."""
    return json.dumps(attributes(key, kilobytes)).encode()
