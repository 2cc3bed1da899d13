"""Greeting, hero, recommendations and coupons for a profile, each with its reason.

The functions take the profile as an argument and make no calls. An empty profile gets the general page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, cast

from .catalogue import Catalogue, Coupon, Product, lower
from .departments import Department

ROW = 6
"""Products in a row of recommendations."""
COUPONS = 3
COMMON = 40
"""The number of bestsellers that are in most baskets: going with one of them is no reason."""
OWN_BRAND_FANS = 0.35
"""The share of own-brand goods from which on the shop recommends more of them."""

WITH_CHILDREN = ("Fruit snacks", "Juice boxes", "Yogurt multipack", "Kids’ cereal", "String cheese", "Lunch kit",
                 "Granola bars", "Chocolate milk", "Applesauce", "Fruit cups")  # fmt: skip

LAST_DAY = date(2017, 12, 31)
"""The last day of the data."""

HERO_PICTURES = ["strawberry", "croissant", "cheese-wedge"]


@dataclass(frozen=True, slots=True)
class Pick:
    """A product, and why it is shown."""

    product: Product
    why: str = ""


RANKS = ("regular", "goes with", "household", "")
"""Kinds of reasons, the strongest first."""


@dataclass(frozen=True, slots=True)
class Because:
    """Why a product is shown: the kind of the reason (one of `RANKS`), and the reason in words."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of products under one heading, and why it is there."""

    title: str
    why: str
    picks: list[Pick]
    department: Department | None = None


@dataclass(frozen=True, slots=True)
class Hero:
    """The large panel at the top. `department` is `None` on the general page."""

    headline: str
    line: str
    why: str
    pictures: list[str]
    department: Department | None


@dataclass(frozen=True, slots=True)
class Offer:
    """A coupon in words.

    Args:
        coupon: the coupon.
        title: what it is for.
        picture: the name of its picture.
        why: why this household sees it.
        terms: what it takes off, and off what.
        ends: its last day.
        sent: whether a campaign sent it to this household.
    """

    coupon: Coupon
    title: str
    picture: str
    why: str
    terms: str
    ends: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Home:
    """All that the home page shows."""

    greeting: str
    facts: list[str]
    hero: Hero
    rows: list[Row]
    offers: list[Offer]


def home(profile: Mapping[str, Any], catalogue: Catalogue) -> Home:
    """Return the home page for a profile; the general page for an empty one."""
    if not profile:
        return Home("", [], _generic_hero(), [_bestsellers(catalogue)], offers(profile, catalogue)[:COUPONS])
    return Home(
        greeting=f"Welcome back, {text(profile, 'display_name') or 'neighbor'}",
        facts=list(_facts(profile)),
        hero=_hero(profile, catalogue),
        rows=list(_rows(profile, catalogue)) or [_bestsellers(catalogue)],
        offers=offers(profile, catalogue)[:COUPONS],
    )


# --- the profile, read with care: a vendor may send less than hoped, or something else ------------------------------


def text(profile: Mapping[str, Any], name: str) -> str:
    """Return an attribute as text; empty if it is missing or not text."""
    value = profile.get(name)
    return value if isinstance(value, str) else ""


def number(profile: Mapping[str, Any], name: str) -> float:
    """Return an attribute as a number; 0 if it is missing or not a number."""
    value = profile.get(name)
    try:
        return float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return 0.0


def texts(profile: Mapping[str, Any], name: str) -> list[str]:
    """Return an attribute as a list of texts, without items of other types."""
    value = profile.get(name)
    items = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
    return [item for item in items if isinstance(item, str)]


def favourites(profile: Mapping[str, Any], catalogue: Catalogue) -> list[Product]:
    """Return the household's favourite products that the shop still sells, the most frequent first."""
    found = (catalogue.products.get(id) for id in texts(profile, "favourite_products"))
    return [product for product in found if product is not None]


def favourite_departments(profile: Mapping[str, Any], catalogue: Catalogue) -> list[Department]:
    """Return the household's favourite departments, the most typical first."""
    found = (catalogue.departments.get(slug) for slug in texts(profile, "favourite_departments"))
    return [department for department in found if department is not None]


def has_children(profile: Mapping[str, Any]) -> bool:
    """Return whether children live in the household, according to the profile."""
    return text(profile, "kids") not in ("", "0")


# --- the parts of the page ------------------------------------------------------------------------------------------


def _generic_hero() -> Hero:
    return Hero("Good food, fairly priced", "What the neighborhood buys, all in one place.", "", HERO_PICTURES, None)


def _hero(profile: Mapping[str, Any], catalogue: Catalogue) -> Hero:
    departments = favourite_departments(profile, catalogue)
    if not departments:
        return _generic_hero()
    first = departments[0]
    why = f"because more of your shopping goes on {first.title} than in most households"
    liked = [product.picture for product in favourites(profile, catalogue) if product.department == first.slug]
    others = [product.picture for product in favourites(profile, catalogue)]
    pictures = list(dict.fromkeys([*liked[:1], first.picture, *liked, *others]))[:3]
    return Hero(first.headline, first.line, why, pictures, first)


def _facts(profile: Mapping[str, Any]) -> Iterator[str]:
    if tier := text(profile, "tier"):
        yield f"{tier.capitalize()} member"
    if visits := number(profile, "visits"):
        yield f"{visits:,.0f} {'visit' if visits == 1 else 'visits'} in a year"
    if day := text(profile, "usual_day"):
        yield f"usually on {day}s"
    if last := day_of(text(profile, "last_visit")):
        yield f"last seen {last}"


def _rows(profile: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Row]:
    regulars = favourites(profile, catalogue)
    shown = {product.name for product in regulars[:ROW]}
    if regulars:
        yield Row("Your regulars", "because you buy these most often", [Pick(product) for product in regulars[:ROW]])
    partners = list(_partners(regulars, catalogue, shown))
    if partners:
        yield Row("Goes well with your basket", "because others buy them together with what you buy", partners)
    for department in favourite_departments(profile, catalogue)[:2]:
        more = _fresh(catalogue.in_department(department.slug), shown)
        if len(more) >= 3:
            why = f"because you spend more on {department.title} than most"
            yield Row(f"More from {department.title}", why, [Pick(product) for product in more], department)
    if has_children(profile):
        chosen = (product for product in catalogue.products.values() if product.name in WITH_CHILDREN)
        yield Row(
            "For the lunchbox", "because there are children in your household", [Pick(p) for p in _fresh(chosen, shown)]
        )
    share = number(profile, "own_brand_share")
    if share >= OWN_BRAND_FANS:
        chosen = (product for product in catalogue.bestsellers if product.is_own_brand)
        why = f"because {share:.0%} of what you buy is our own brand"
        yield Row("Our own brand", why, [Pick(product) for product in _fresh(chosen, shown)])


def _partners(regulars: list[Product], catalogue: Catalogue, shown: set[str]) -> Iterator[Pick]:
    """Yield products that go with the regulars, one for each of them in turn, and add them to `shown`."""
    names = {product.name for product in regulars}
    left = ROW
    for rank in range(3):
        for regular in regulars:
            if left == 0 or rank >= len(regular.goes_with):
                continue
            product = catalogue.products.get(regular.goes_with[rank])
            if product is not None and product.name not in names | shown:
                shown.add(product.name)
                left -= 1
                yield Pick(product, f"because you buy {lower(regular.name)}")


def _fresh(products: Iterable[Product], shown: set[str]) -> list[Product]:
    """Return the first products of a row whose names are not on the page yet, and add them to `shown`."""
    chosen: list[Product] = []
    for product in products:
        if product.name not in shown:
            shown.add(product.name)
            chosen.append(product)
            if len(chosen) == ROW:
                break
    return chosen


def _bestsellers(catalogue: Catalogue) -> Row:
    picks = [Pick(product) for product in catalogue.bestsellers[: 2 * ROW]]
    return Row("Bestsellers", "what most households put in their basket", picks)


class Reasons:
    """Why products suit a profile.

    Args:
        profile: the household's.
        catalogue: what the shop sells.
    """

    def __init__(self, profile: Mapping[str, Any], catalogue: Catalogue) -> None:
        regulars = favourites(profile, catalogue)
        common = {bestseller.id for bestseller in catalogue.bestsellers[:COMMON]}
        self._regulars = {regular.id for regular in regulars}
        self._lately = set(texts(profile, "lately_bought"))
        self._partners = {id: regular for regular in reversed(regulars) for id in regular.goes_with}
        self._names = {regular.name for regular in regulars}
        self._telling = [regular for regular in regulars if regular.id not in common]
        self._children = has_children(profile)
        self._own_brand = number(profile, "own_brand_share") >= OWN_BRAND_FANS

    def of(self, product: Product) -> Because:
        """Return the strongest reason for a product."""
        if product.id in self._regulars:
            return Because("regular", "One of your regulars")
        if product.id in self._lately:
            return Because("regular", "You bought this lately")
        if product.id in self._partners:
            return Because("goes with", f"Goes with the {lower(self._partners[product.id].name)} that you buy")
        if product.name in self._names:
            return Because("goes with", f"Another kind of the {lower(product.name)} that you buy")
        for regular in self._telling:
            if regular.id in product.goes_with:
                return Because("goes with", f"Often in one basket with {lower(regular.name)}")
        if self._children and product.name in WITH_CHILDREN:
            return Because("household", "There are children in your household")
        if self._own_brand and product.is_own_brand:
            return Because("household", "Our own brand, which you often choose")
        return Because("", "")


def share_of(department: Department, profile: Mapping[str, Any]) -> str:
    """Return what a household spends in a department, in a sentence; empty when the profile does not say."""
    spends = profile.get("department_spend")
    for item in cast("Sequence[object]", spends) if isinstance(spends, list | tuple) else ():
        match item:
            case {"department": department.slug, "spend": int() | float() as spend, "share": int() | float() as share}:
                return f"You spent ${spend:,.0f} here in the year, {share:.0%} of your shopping."
            case _:
                continue
    return ""


def offers(profile: Mapping[str, Any], catalogue: Catalogue, department: str | None = None) -> list[Offer]:
    """Return all coupons, the ones that suit the profile best first.

    Args:
        profile: the household's.
        catalogue: what the shop sells.
        department: only coupons for this department, by its slug.
    """
    campaigns = set(texts(profile, "active_campaigns"))
    regulars = favourites(profile, catalogue)
    departments = [department.slug for department in favourite_departments(profile, catalogue)]
    ranked: list[tuple[float, Offer]] = []
    for coupon in catalogue.coupons:
        if department is not None and department not in coupon.departments:
            continue
        goods = catalogue.goods[coupon.id]
        reason, score, picture = "", 0.0, goods.products[0].picture
        liked = next((product.name for product in regulars if product.name in goods.pictures), None)
        slug = next((slug for slug in departments if slug in coupon.departments), None)
        if liked is not None:
            reason, score, picture = f"because you buy {lower(liked)}", 4.0, goods.pictures[liked]
        elif slug is not None:
            reason, score = (
                f"because you shop in {catalogue.departments[slug].title}",
                2.0 - departments.index(slug) / 9,
            )
        elif visited := next(
            (slug for slug in coupon.departments if share_of(catalogue.departments[slug], profile)), ""
        ):
            reason, score = f"because you shop in {catalogue.departments[visited].title}", 0.5
        else:
            reason = "because most households buy it"
        sent = coupon.campaign in campaigns
        score += (8.0 if sent else 0.0) + (1.0 if coupon.value else 0.0) + goods.popularity / 1e4
        ranked.append((score, Offer(coupon, goods.title, picture, reason, _terms(coupon), day_of(coupon.ends), sent)))
    ranked.sort(key=lambda pair: (-pair[0], pair[1].coupon.id))
    chosen: dict[str, Offer] = {}
    for _, offer in ranked:
        chosen.setdefault(offer.title, offer)
    return list(chosen.values())


def _terms(coupon: Coupon) -> str:
    """Return what a coupon takes off, and off what."""
    amount = f"${coupon.value:.2f} off" if coupon.value else "A discount on"
    count = len(coupon.products)
    return f"{amount} one of {count} products" if count > 1 else f"{amount} one product"


def day_of(text: str, today: date | None = None) -> str:
    """Return a date of the data, `YYYY-MM-DD`, as if the data ended today: `28 February`; empty when it is no date.

    Args:
        text: the date as stored.
        today: Default: the current day.
    """
    try:
        day = date.fromisoformat(text) + ((today or date.today()) - LAST_DAY)
    except (ValueError, OverflowError):
        return ""
    return f"{day.day} {day:%B}"
