"""The storefront's committed data, and its use in the shop."""

from __future__ import annotations

import json
import re
from datetime import date
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.storefront import departments, derive_data, derive_pictures, recommend
from examples.storefront.account import attribute_rows
from examples.storefront.catalogue import DATA, Catalogue, lower
from examples.storefront.featured import FEATURED
from examples.storefront.security import local_path
from examples.storefront.settings import Settings

SHOP = DATA.parent


@cache
def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


@cache
def catalogue() -> Catalogue:
    return Catalogue.load()


# --- the files ------------------------------------------------------------------------------------------------------


def test_there_is_one_profile_a_household() -> None:
    households = rows("households.jsonl")
    assert len(households) == 2469
    assert len({row["household_id"] for row in households}) == 2469
    assert [row["household_id"] for row in households] == sorted((row["household_id"] for row in households), key=int)
    for row in households:
        assert row["household_id"].isdigit()
        assert row["display_name"] == f"Household {row['household_id']}"  # the data contain no names
        assert len(row) <= 30  # what an Amperity index can hold
        assert row["tier"] in ("platinum", "gold", "silver", "bronze")
        assert row["spend"] >= 0
        assert row["visits"] >= 1
        assert date(2017, 1, 1) <= date.fromisoformat(row["first_visit"])
        assert date.fromisoformat(row["first_visit"]) <= date.fromisoformat(row["last_visit"]) <= date(2018, 1, 1)
        assert 0 <= row["own_brand_share"] <= 1
        assert row["coupon_affinity"] in ("keen", "some", "none")
    assert sum("age_band" in row for row in households) == 801  # those whose demographics the source knows


def test_tiers_follow_spend() -> None:
    by_tier: dict[str, list[float]] = {}
    for row in rows("households.jsonl"):
        by_tier.setdefault(row["tier"], []).append(row["spend"])
    for higher, next_one in (("platinum", "gold"), ("gold", "silver"), ("silver", "bronze")):
        assert min(by_tier[higher]) >= max(by_tier[next_one])
        assert len(by_tier[higher]) < len(by_tier[next_one])


def test_products_can_be_sold_and_shown() -> None:
    products = rows("products.jsonl")
    assert 3000 <= len(products) <= 4500
    assert len({row["product_id"] for row in products}) == len(products)
    pictures = {path.stem for path in (SHOP / "static" / "pictures").glob("*.svg")}
    slugs = {department.slug for department in departments.DEPARTMENTS}
    assert {row["department"] for row in products} == slugs
    for row in products:
        assert row["price"] >= 0.05
        assert row["households"] >= 10
        assert row["brand"] in ("Own brand", "National brand")
        assert row["picture"] in pictures
        assert re.fullmatch(r"[A-Z0-9][^_]*", row["name"])
        assert not re.search(r"\b[A-Z]{4,}\b|  |[(:]", row["name"]), "a till's abbreviation is left"
    assert pictures == derive_pictures.wanted()
    assert {department.picture for department in departments.DEPARTMENTS} <= pictures
    assert {item.picture for item in FEATURED} <= pictures
    assert set(recommend.HERO_PICTURES) <= pictures


def test_what_refers_to_something_finds_it() -> None:
    products = {row["product_id"] for row in rows("products.jsonl")}
    slugs = {department.slug for department in departments.DEPARTMENTS}
    campaigns = {row["campaign_id"] for row in rows("coupons.jsonl")}
    for row in rows("products.jsonl"):
        assert set(row["with"]) <= products - {row["product_id"]}
    for row in rows("coupons.jsonl"):
        assert row["products"]
        assert set(row["products"]) <= products
        assert set(row["departments"]) <= slugs
        assert date.fromisoformat(row["ends"]) >= date(2017, 12, 31)
        assert row.get("value", 1) > 0
    for row in rows("households.jsonl"):
        assert {*row["favourite_products"], *row["lately_bought"]} <= products
        assert {*row["favourite_departments"], *(each["department"] for each in row["department_spend"])} <= slugs
        assert set(row["active_campaigns"]) <= campaigns


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in SHOP.rglob("*") if path.is_file()) < 6_000_000


def test_the_cards_of_the_featured_households_say_what_their_profiles_say() -> None:
    households = {row["household_id"]: row for row in rows("households.jsonl")}
    for item in FEATURED:
        assert households[item.number]["favourite_departments"][0] == item.department
    assert households["2280"]["household_composition"] == "2 Adults Kids"
    assert households["2280"]["usual_day"] == "Friday"
    assert (households["1740"]["age_band"], households["1740"]["visits"]) == ("19-24", 320)
    assert (households["2260"]["age_band"], households["2260"]["usual_day"]) == ("45-54", "Monday")
    assert (households["1062"]["age_band"], households["1062"]["household_composition"]) == ("65+", "2 Adults No Kids")
    assert households["1062"]["own_brand_share"] > 0.4
    assert (households["67"]["kids"], households["67"]["coupon_affinity"]) == ("3+", "keen")
    assert (households["412"]["age_band"], households["412"]["kids"]) == ("65+", "1")


# --- how they were derived ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("till", "shown"),
    [
        ("16 OZ", "16 oz"), (".5 OZ", "0.5 oz"), ("1 GA", "1 gal"), ("2 L", "2 L"), ("12 PK/12 OZ", "12 × 12 oz"),
        ("CTN", None), ("", None), (None, None), ("18 IN", None), ("12 PK/12 XX", None),
    ],
)  # fmt: skip
def test_package_sizes_are_written_out(till: str | None, shown: str | None) -> None:
    assert derive_data.pretty_size(till) == shown


def test_product_types_are_written_out() -> None:
    names = {"BACON > PREMIUM": ("Premium bacon", ""), "LEMONS": ("Lemons", "lemon")}
    assert derive_data.product_name("BACON", "PREMIUM", names) == ("Premium bacon", "")
    assert derive_data.product_name("CITRUS", "LEMONS", names) == ("Lemons", "lemon")
    assert derive_data.product_name("X", "FRZN FRUIT (BULK&BA", names) == ("Frozen fruit", "")


@pytest.mark.parametrize(("name", "fields"), [("shelves.tsv", 5), ("names.tsv", 3)])
def test_the_tables_have_all_their_fields_and_no_line_twice(name: str, fields: int) -> None:
    lines = list(derive_data.read_tsv(SHOP / "taxonomy" / name))
    assert {len(line) for line in lines} == {fields}
    keys = [tuple(line[: 2 if fields == 5 else 1]) for line in lines]
    assert len(set(keys)) == len(keys)


# --- use in the shop --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_every_household_gets_a_page_whose_reasons_are_true() -> None:
    shop = catalogue()
    for profile in rows("households.jsonl"):
        home = recommend.home(profile, shop)
        regulars = {lower(product.name) for product in recommend.favourites(profile, shop)}
        liked = {shop.departments[slug].title for slug in profile["favourite_departments"]}
        visited = {shop.departments[each["department"]].title for each in profile.get("department_spend", [])}
        assert home.rows
        assert len(home.offers) == recommend.COUPONS
        reasons = [pick.why for row in home.rows for pick in row.picks] + [offer.why for offer in home.offers]
        for reason in filter(None, reasons):
            if reason == "because most households buy it":
                continue
            about = re.fullmatch(r"because you (buy|shop in) (.+)", reason)
            assert about is not None
            assert about[2] in (regulars if about[1] == "buy" else liked | visited)
        for row in home.rows:
            names = [pick.product.name for pick in row.picks]
            assert 1 <= len(names) == len(set(names))
        for offer in home.offers:
            assert offer.sent == (offer.coupon.campaign in profile["active_campaigns"])


def test_an_empty_profile_gets_the_page_for_everybody() -> None:
    home = recommend.home({}, catalogue())
    assert home.greeting == ""
    assert [row.title for row in home.rows] == ["Bestsellers"]
    assert home.hero.department is None
    assert not any(offer.sent for offer in home.offers)
    assert {offer.why for offer in home.offers} == {"because most households buy it"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
attributes = st.sampled_from(sorted({*rows("households.jsonl")[0], "surprise"}))


@given(st.dictionaries(attributes, anything, max_size=8))
def test_no_profile_whatever_breaks_a_page(profile: dict[str, Any]) -> None:
    assert recommend.home(profile, catalogue()).rows
    assert len(attribute_rows(profile, catalogue())) == len(profile)


def test_the_account_shows_every_attribute_in_words() -> None:
    (profile,) = [row for row in rows("households.jsonl") if row["household_id"] == "1062"]
    table = {row.name: row.values for row in attribute_rows(profile, catalogue())}
    assert table["spend"] == ["$647.32"]
    assert table["own_brand_share"] == ["43%"]
    assert table["favourite_departments"][0] == "Frozen"
    assert table["favourite_products"][0] == "Ice cream"
    assert table["department_spend"][0].startswith("Frozen: $")
    assert table["active_campaigns"] == ["none"]


@given(st.text())
def test_a_form_leads_nowhere_but_to_a_path_of_this_shop(target: str) -> None:
    path = local_path(target)
    assert path.startswith("/")
    assert not path.startswith(("//", "/\\"))
    assert path in (target, "/")


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="PROFILE_ENRICH_API_KEY is not set"):
        Settings.from_environment({})
    with pytest.raises(ValueError, match="STOREFRONT_TTL must be a number"):
        Settings.from_environment({"PROFILE_ENRICH_API_KEY": "planted-secret", "STOREFRONT_TTL": "soon"})
    settings = Settings.from_environment({"PROFILE_ENRICH_API_KEY": "planted-secret", "STOREFRONT_TTL": "2.5"})
    assert settings.ttl == 2.5
    assert "planted-secret" not in repr(settings)


def test_templates_hold_nothing_that_the_policy_forbids() -> None:
    for template in (SHOP / "templates").glob("*.html"):
        text = template.read_text("utf-8")
        assert "|safe" not in text
        assert not re.search(r"<script|<style|\sstyle=|\son[a-z]+=|https?://", text), template.name


def test_dates_are_shown_as_if_the_data_ended_today() -> None:
    assert recommend.day_of("2017-12-31", date(2026, 3, 1)) == "1 March"
    assert recommend.day_of("2017-12-30", date(2026, 3, 1)) == "28 February"
    assert recommend.day_of("2018-02-28", date(2026, 3, 1)) == "29 April"
    today = date.today()
    assert recommend.day_of("2017-12-31") in {f"{day.day} {day:%B}" for day in (today, date.today())}
    assert [recommend.day_of(text) for text in ("", "soon", "9999-12-31")] == [""] * 3
