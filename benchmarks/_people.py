"""Profiles of made-up people as a CSV file: the same ones for the same seed, ten million in a minute (by DuckDB).

Values are skewed as those of real people are: a few cities have many, surnames have a long tail, most spend little.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["COLUMNS", "FILTERABLE", "write_csv"]

_FIRST = [
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Hugo",
    "Ida",
    "Jonas",
    "Klara",
    "Liam",
    "Mia",
    "Noah",
    "Olga",
    "Paul",
    "Quinn",
    "Rosa",
    "Sam",
    "Tara",
]
_CITY = [
    "Berlin",
    "Hamburg",
    "Munich",
    "Cologne",
    "Vienna",
    "Graz",
    "Zurich",
    "Basel",
    "Bern",
    "Lyon",
    "Paris",
    "Lille",
    "Milan",
    "Rome",
    "Turin",
    "Madrid",
]


def _random(column: int) -> str:
    """A number from 0 to 1 that depends on the row, the column and the seed."""
    return f"(hash(i * 64 + {column} + $seed::UBIGINT * 1000003) % 1000000007) / 1000000007.0"


def _among(values: list[str], column: int) -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return f"([{listed}])[1 + floor(pow({_random(column)}, 2) * {len(values)})::INT]"


# In this order a profile of 5, 10 or 30 columns takes the first ones.
COLUMNS: dict[str, str] = {
    "id": "'u' || lpad(i::VARCHAR, 8, '0')",
    "email": "'person' || i || '@' || (['mail','post','web'])[1 + (i % 3)] || '.example'",
    "first_name": f"{_among(_FIRST, 1)} || if({_random(2)} < 0.7, '', floor({_random(3)} * 50)::INT::VARCHAR)",
    "surname": f"'Surname' || floor(pow({_random(4)}, 3) * 20000)::INT",
    "city": f"{_among(_CITY, 5)} || if({_random(6)} < 0.4, '', ' ' || floor({_random(7)} * 60)::INT)",
    "country": _among(["DE", "AT", "CH", "FR", "IT", "ES", "NL", "BE"], 8),
    "tier": _among(["bronze", "silver", "gold", "platinum"], 9),
    "opted_in": f"CASE WHEN {_random(10)} < 0.6 THEN 'true' ELSE 'false' END",
    "age": f"CASE WHEN {_random(11)} < 0.1 THEN NULL ELSE 18 + floor({_random(12)} * 70)::INT END",
    "ltv": f"round(pow({_random(13)}, 4) * 5000, 2)",
    "channel": _among(["web", "app", "store", "phone"], 14),
    "segment": f"'s' || floor({_random(15)} * 40)::INT",
    "zip": f"lpad(floor({_random(16)} * 99999)::INT::VARCHAR, 5, '0')",
    "last_order": f"strftime(DATE '2020-01-01' + floor({_random(17)} * 2000)::INT, '%Y-%m-%d')",
    "orders": f"floor(pow({_random(18)}, 3) * 200)::INT",
    "gender": _among(["f", "m", "x"], 19),
    "language": _among(["de", "fr", "it", "es", "en"], 20),
    "device": _among(["ios", "android", "desktop"], 21),
    "churn_risk": f"round({_random(22)}, 3)",
    "favourite": f"'category ' || floor({_random(23)} * 25)::INT",
    **{f"trait_{n}": f"'value ' || floor({_random(n + 30)} * {10 * n})::INT" for n in range(1, 11)},
}

FILTERABLE = ("email", "first_name", "surname", "city", "country", "tier", "opted_in", "age", "channel", "segment")
"""Those of them that are filtered by, as far as a profile has them."""


def write_csv(path: Path, rows: int, columns: int, *, seed: int = 1, first: int = 0) -> None:
    """Writes people number `first` to `first + rows - 1`."""
    import duckdb

    names = list(COLUMNS)[:columns]
    chosen = ", ".join(f"{COLUMNS[name]} AS {name}" for name in names)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {chosen} FROM range({first}, {first + rows}) r(i)) TO '{path}' (HEADER)".replace(
                "$seed", str(seed)
            )
        )
