"""Departments, products and coupons, read once from the files in `data/`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .departments import DEPARTMENTS

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True, slots=True)
class Product:
    """A product.

    Args:
        id: its number.
        name: what it is called.
        department: the slug of its department.
        shelf: where it stands there.
        picture: the name of its picture.
        brand: `"Own brand"` or `"National brand"`.
        size: the package, where it is known.
        price: what a piece typically costs, in dollars.
        households: how many households bought it in the year.
        goes_with: ids of products that are often in the same basket, the likeliest first.
    """

    id: str
    name: str
    department: str
    shelf: str
    picture: str
    brand: str
    size: str | None
    price: float
    households: int
    goes_with: tuple[str, ...]

    @property
    def is_own_brand(self) -> bool:
        """Whether it has the shop's own brand."""
        return self.brand == "Own brand"


@dataclass(frozen=True, slots=True)
class Coupon:
    """A coupon that can be redeemed now.

    Args:
        id: its number.
        campaign: the id of the campaign that sent it out.
        ends: the last day, as `YYYY-MM-DD`.
        value: what it takes off, in dollars, where that is known.
        products: ids of what it is for, the most popular first.
        departments: slugs of their departments.
    """

    id: str
    campaign: str
    ends: str
    value: float | None
    products: tuple[str, ...]
    departments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Goods:
    """The products of a coupon.

    Args:
        products: the most popular first.
        pictures: the picture of each product name.
        title: all of it in a few words.
        popularity: how many households buy the most popular of them.
    """

    products: tuple[Product, ...]
    pictures: dict[str, str]
    title: str
    popularity: int


class Catalogue:
    """All that the shop sells.

    Args:
        products: the most popular first.
        coupons: those that run now.
    """

    def __init__(self, products: Iterable[Product], coupons: Iterable[Coupon]) -> None:
        self.products = {product.id: product for product in products}
        self.coupons = list(coupons)
        self.goods = {coupon.id: self._goods(coupon) for coupon in self.coupons}
        self.departments = {department.slug: department for department in DEPARTMENTS}
        self._by_department: dict[str, list[Product]] = defaultdict(list)
        for product in self.products.values():
            self._by_department[product.department].append(product)

    @classmethod
    def load(cls, folder: Path = DATA) -> Catalogue:
        """Read `products.jsonl` and `coupons.jsonl`."""
        products = (
            Product(
                row["product_id"], row["name"], row["department"], row["shelf"], row["picture"], row["brand"],
                row.get("size"), row["price"], row["households"], tuple(row["with"]),
            )
            for row in _rows(folder / "products.jsonl")
        )  # fmt: skip
        coupons = (
            Coupon(
                row["coupon_id"], row["campaign_id"], row["ends"], row.get("value"), tuple(row["products"]),
                tuple(row["departments"]),
            )
            for row in _rows(folder / "coupons.jsonl")
        )  # fmt: skip
        return cls(products, coupons)

    def _goods(self, coupon: Coupon) -> Goods:
        products = tuple(self.products[id] for id in coupon.products)
        pictures = {product.name: product.picture for product in reversed(products)}
        names = list(dict.fromkeys(product.name for product in products))
        title = " or ".join([names[0], *map(lower, names[1:])])
        if len(names) > 2:
            title = f"{names[0]}, {lower(names[1])} and more"
        return Goods(products, pictures, title, max(product.households for product in products))

    def in_department(self, slug: str) -> list[Product]:
        """Return the products of a department, the most popular first."""
        return self._by_department.get(slug, [])

    def shelves(self, slug: str) -> dict[str, list[Product]]:
        """Return the products of a department by shelf, the shelf with the most popular product first."""
        shelves: dict[str, list[Product]] = defaultdict(list)
        for product in self.in_department(slug):
            shelves[product.shelf].append(product)
        return dict(shelves)

    @cached_property
    def bestsellers(self) -> list[Product]:
        """The products that most households buy, without repeated names, at most two of a department."""
        chosen: list[Product] = []
        names: set[str] = set()
        count: dict[str, int] = defaultdict(int)
        for product in self.products.values():
            if product.name not in names and count[product.department] < 2:
                names.add(product.name)
                count[product.department] += 1
                chosen.append(product)
        return chosen


def lower(name: str) -> str:
    """A product's name within a sentence: `White milk` becomes `white milk`, `BBQ sauce` and `Fuji apples` stay."""
    first = name.split(" ", 1)[0]
    return name if first in PROPER or first.isupper() else name[:1].lower() + name[1:]


PROPER = {"American", "Angus", "Anjou", "Asian", "Bartlett", "Bosc", "Braeburn", "Cornish", "Danish", "English", "Fuji",
          "Gala", "Golden", "Granny", "Italian", "Rainier", "Roma", "Vienna"}  # fmt: skip


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
