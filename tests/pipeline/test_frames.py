"""Tables of pyarrow, polars and pandas, enriched in this process."""

from __future__ import annotations

import datetime
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_enrich import (
    BlockingProfileClient,
    CensusSource,
    ConfigurationError,
    InvalidKeyError,
    MemorySource,
    MissingExtraError,
    ProfileClient,
    SourceAuthError,
    SourceUnavailable,
)
from profile_enrich.errors import MissingKeyError, ProfileMissing
from profile_enrich.pipeline import EnrichOptions
from profile_enrich.pipeline.frames import enrich_table
from profile_enrich.pipeline.keys import key_of
from profile_enrich.pipeline.tables.columns import Columns
from profile_enrich.pipeline.tables.table_plan import TablePlan
from profile_enrich.testing import VendorServer, faults
from tests.pipeline.helpers import with_options

pa = pytest.importorskip("pyarrow", reason="tables need the extra arrow", exc_type=ImportError)

PEOPLE: dict[str, dict[str, object]] = {
    "u1": {"tier": "gold", "ltv": 3, "since": "2020-02-29", "tags": ["a", {"b": 1}]},
    "u2": {"tier": "none", "ltv": 2.5},
    "5": {"tier": 7},
}


@pytest.fixture
def client() -> Iterator[BlockingProfileClient]:
    with ProfileClient(MemorySource(PEOPLE)).blocking() as blocking:
        yield blocking


@pytest.fixture
def vendor() -> Iterator[VendorServer]:
    people = {str(n): {"id": str(n), "n": n} for n in range(300)}
    with VendorServer(people, key="secret") as server:
        yield server


def census(vendor: VendorServer, **arguments: Any) -> BlockingProfileClient:
    source = CensusSource("secret", entity=vendor.entity_id, base_url=vendor.base_url)
    return ProfileClient(source, **arguments).blocking()


def polars() -> Any:
    return pytest.importorskip("polars", reason="polars is not installed", exc_type=ImportError)


def pandas() -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed", exc_type=ImportError)


# --- the output -----------------------------------------------------------------------------------------------------


def test_E1_E4_the_output_is_the_cores_for_repeated_null_unknown_and_empty_keys(client: BlockingProfileClient) -> None:
    """E1, E4: rows keep their order; each has its profile or the reason why not."""
    table = pa.table({"k": ["u1", None, "u1", "nobody", "u2", ""], "n": range(6)})
    enriched = enrich_table(table, client=client, key="k", fields={"tier": "string", "ltv": "double"})
    assert enriched.to_pydict() == {
        "k": ["u1", None, "u1", "nobody", "u2", ""],
        "n": list(range(6)),
        "profile_tier": ["gold", None, "gold", None, "none", None],
        "profile_ltv": [3.0, None, 3.0, None, 2.5, None],
        "profile_reason": [None, "missing_key", None, "not_found", None, "missing_key"],
    }
    assert [str(kind) for kind in enriched.schema.types] == ["string", "int64", "string", "double", "string"]


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.sampled_from(["u1", "u2", "x", "", "5"]), st.integers(4, 6)), max_size=30))
def test_E1_E4_each_row_is_what_the_core_says_of_its_key(keys: list[str | int | None]) -> None:
    """E1, E4: for any keys, also of mixed types, in the engine's types as in lists."""
    with ProfileClient(MemorySource(PEOPLE)).blocking() as client:
        expected: list[tuple[object, str | None]] = []
        for key in keys:
            try:
                profile = client.lookup(key_of(key))
                expected.append((profile.get("ltv"), None if profile else "not_found"))
            except InvalidKeyError as error:
                expected.append((None, error.code))
        plan = TablePlan("k", fields={"ltv": "double"})
        batch = plan.key_batch(keys)
        added = plan.join(batch, client.lookup_many(batch.keys))
    columns = added.columns
    assert list(zip(columns["profile_ltv"].to_pylist(), columns["profile_reason"].to_pylist(), strict=True)) == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["5", None, "5"], pa.large_string()),
        pa.array(["5", None, "5"]).dictionary_encode(),
        pa.chunked_array([["5"], [None, "5"], []], pa.string()),
        pa.chunked_array([pa.array(["5"]).dictionary_encode(), pa.array([None, "5"]).dictionary_encode()]),
        pa.array([5, None, 5]),
        pa.array([5, None, 5], pa.uint8()),
    ],
    ids=["large", "dictionary", "chunks", "dictionaries", "int64", "uint8"],
)
def test_E2_text_and_whole_numbers_are_keys_in_any_of_arrows_shapes(client: BlockingProfileClient, column: Any) -> None:
    """E2: a whole number is looked up by its decimal text."""
    enriched = enrich_table(pa.table({"k": column}), client=client, key="k", fields=["tier"])
    assert enriched["profile_tier"].to_pylist() == [7, None, 7]
    assert enriched["k"].to_pylist() == column.to_pylist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5]),
        pa.array([True]),
        pa.array([b"5"]),
        pa.array([["5"]]),
        pa.array([{"a": "5"}]),
        pa.array([datetime.date(2020, 1, 1)]),
        pa.array(["x" * 2_049]),
    ],
    ids=["fraction", "bool", "bytes", "list", "struct", "date", "long"],
)
def test_E1_what_is_no_key_is_said_in_the_row(client: BlockingProfileClient, column: Any) -> None:
    """E1: no call is made, and the row stays."""
    enriched = enrich_table(pa.table({"k": column}), client=client, key="k", fields=["tier"])
    assert enriched["profile_reason"].to_pylist() == ["invalid_key"]


def test_not_a_number_is_no_key(client: BlockingProfileClient) -> None:
    """E1: missing values in each form that pandas has."""
    enriched = enrich_table(pa.table({"k": pa.array([float("nan")])}), client=client, key="k")
    assert enriched["profile_reason"].to_pylist() == ["missing_key"]


def test_tables_without_rows_keep_their_schema(client: BlockingProfileClient) -> None:
    """E1: an empty input gives an empty output."""
    fields = {"ltv": "double"}
    for column in (pa.chunked_array([], pa.string()), pa.array([], pa.int64()), pa.nulls(0)):
        enriched = enrich_table(
            pa.table({"k": column}), client=client, key="k", fields=fields, options=EnrichOptions(on_error="raise")
        )
        assert enriched.num_rows == 0
        assert [str(kind) for kind in enriched.schema.types][1:] == ["double", "string"]


def test_E2_each_distinct_key_costs_one_call(vendor: VendorServer) -> None:
    """E2: 5,000 rows, 300 keys, and the 9 that the vendor does not have."""
    keys = [str(n % 300) if n % 50 else f"nobody-{n % 9}" for n in range(5_000)]
    with census(vendor) as client:
        enriched = enrich_table(
            pa.table({"k": keys}), client=client, key="k", fields={"n": "int64"}, options=EnrichOptions(concurrency=16)
        )
        again = enrich_table(pa.table({"k": keys}), client=client, key="k", fields={"n": "int64"})
    assert enriched["profile_n"].to_pylist() == [int(key) if key.isdigit() else None for key in keys]
    assert again.equals(enriched)
    assert vendor.call_count == len(set(keys)) + 1  # and the one that confirms the first 404
    assert vendor.max_in_flight <= 16


async def test_E4_a_client_is_awaited() -> None:
    """E4: the same for asynchronous code."""
    async with ProfileClient(MemorySource(PEOPLE)) as client:
        batch = pa.record_batch({"k": ["u2", "u1"]})
        enriched = await enrich_table(batch, client=client, key="k", fields=["tier"])
    assert isinstance(enriched, pa.RecordBatch)
    assert enriched.to_pydict()["profile_tier"] == ["none", "gold"]


def test_another_type_of_identifier_can_be_the_key() -> None:
    """E2: as a `ProfileKey` of that type."""
    source = MemorySource({("email", "a@b.example"): {"tier": "gold"}})
    with ProfileClient(source).blocking() as client:
        table = pa.table({"k": ["a@b.example"]})
        assert enrich_table(table, client=client, key="k", key_type="email")["profile_tier"].to_pylist() == ["gold"]
        assert enrich_table(table, client=client, key="k")["profile_reason"].to_pylist() == ["not_found"]


# --- policies -------------------------------------------------------------------------------------------------------


def test_E1_missing_profiles_can_be_dropped_or_refused(client: BlockingProfileClient) -> None:
    """E1: a missing profile is not an error, and an error is not a missing profile."""
    table = pa.table({"k": ["u1", "nobody", None]})
    dropped = enrich_table(table, client=client, key="k", fields=["tier"], options=EnrichOptions(on_missing="drop"))
    assert dropped["k"].to_pylist() == ["u1", None]
    assert dropped["profile_reason"].to_pylist() == [None, "missing_key"]
    with pytest.raises(ProfileMissing) as caught:
        enrich_table(table, client=client, key="k", options=EnrichOptions(on_missing="raise"))
    assert "nobody" not in str(caught.value)


def test_E1_failures_can_end_the_call(client: BlockingProfileClient, vendor: VendorServer) -> None:
    """E1: the first row's error, as the core raises it."""
    with pytest.raises(MissingKeyError):
        enrich_table(pa.table({"k": [None]}), client=client, key="k", options=EnrichOptions(on_error="raise"))
    with pytest.raises(ConfigurationError, match="does not fit the declared type"):
        enrich_table(
            pa.table({"k": ["u1"]}),
            client=client,
            key="k",
            fields={"tier": "int64"},
            options=EnrichOptions(on_error="raise"),
        )
    enriched = enrich_table(
        pa.table({"k": ["u1"]}), client=client, key="k", options=EnrichOptions(on_error="raise"), reason=None
    )
    assert "profile_reason" not in enriched.column_names
    vendor.always(faults.ServerError())
    with census(vendor) as failing, pytest.raises(SourceUnavailable):
        enrich_table(
            pa.table({"k": ["1"]}), client=failing, key="k", options=EnrichOptions(on_error="raise", retry_timeout=0)
        )


def test_E1_a_failing_key_does_not_fail_the_others(vendor: VendorServer) -> None:
    """E1: 500 for one key, an invalid response for another."""
    vendor.always(faults.ServerError(), key="1")
    vendor.always(faults.Garbage(), key="2")
    table = pa.table({"k": ["1", "2", "3", "1"]})
    with census(vendor) as client:
        enriched = enrich_table(table, client=client, key="k", fields=["n"], options=EnrichOptions(retry_timeout=0))
    assert enriched["profile_n"].to_pylist() == [None, None, 3, None]
    assert enriched["profile_reason"].to_pylist() == [
        "source_unavailable",
        "source_response",
        None,
        "source_unavailable",
    ]


def test_refused_credentials_end_the_call_whatever_was_asked(vendor: VendorServer) -> None:
    """E1: such errors concern every row."""
    vendor.always(faults.Unauthorized())
    with census(vendor) as client, pytest.raises(SourceAuthError):
        enrich_table(pa.table({"k": ["1"]}), client=client, key="k")


def test_own_columns_win_and_it_is_said_once(client: BlockingProfileClient, caplog: pytest.LogCaptureFixture) -> None:
    """E1: left wins on a name clash."""
    table = pa.table({"tier": ["mine"], "k": ["u1"]})
    with caplog.at_level(logging.WARNING, "profile_enrich"):
        enriched = enrich_table(table, client=client, key="k", fields=["tier", "ltv"], prefix="", reason="why")
    assert enriched.to_pydict() == {"tier": ["mine"], "k": ["u1"], "ltv": [3], "why": [None]}
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "1 attributes are left out, as the table has columns of these names: 'tier'"
    caplog.clear()
    plan = TablePlan("k", fields={"tier": "string", "ltv": "double"}, prefix="")
    assert [name for name, _ in plan.new_columns(["tier", "k"])] == ["ltv", "profile_reason"]
    pickle.loads(pickle.dumps(plan)).new_columns(["tier", "k"])
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"key": "nope"}, "no columns 'nope'"),
        ({"key": "twice"}, "2 columns 'twice'"),
        ({"key": ""}, "key must be the name"),
        ({"on_missing": "dead_letter"}, "on_missing"),
        ({"on_error": "drop"}, "on_error"),
        ({"reason": ""}, "reason"),
        ({"reason": None}, "on_error='raise'"),
        ({"reason": "n"}, "has a column 'n'"),
        ({"key_type": ""}, "key_type"),
        ({"prefix": None}, "prefix"),
        ({"fields": "tier"}, "fields"),
        ({"fields": []}, "at least one attribute"),
        ({"fields": {}}, "at least one attribute with its type"),
        ({"fields": [""]}, "not empty"),
        ({"fields": {"tier": "varchar"}}, "type of 'tier'"),
        ({"fields": {"tier": str}}, "type of 'tier'"),
        ({"client": MemorySource({})}, "client must be"),
        ({"table": {"k": ["u1"]}}, "not dict"),
    ],
)
def test_unusable_arguments_are_named(client: BlockingProfileClient, arguments: dict[str, Any], named: str) -> None:
    """E1: before any lookup."""
    table = pa.Table.from_arrays([pa.array(["u1"])] * 4, names=["k", "n", "twice", "twice"])
    with pytest.raises(ConfigurationError, match=named):
        enrich_table(**with_options({"table": table, "client": client, "key": "k", **arguments}))


def test_engines_need_declared_types() -> None:
    """E1: the schema is known before the job runs."""
    assert Columns({"a": "int64"}, "p_").schema() == [("p_a", pa.int64())]
    Columns({"a": pa.int64()}, "").require_declared("Spark")
    for fields in (None, ["a"]):
        with pytest.raises(ConfigurationError, match="Spark needs to know the columns"):
            Columns(fields, "").require_declared("Spark")


# --- types ----------------------------------------------------------------------------------------------------------

NOON = datetime.datetime(2020, 1, 1, 12)


@pytest.mark.parametrize(
    ("values", "kind", "out"),
    [
        ([True, None], "bool", [True, None]),
        ([1, -(2**63)], "int64", [1, -(2**63)]),
        ([1, 2**63], "string", ["1", str(2**63)]),
        ([1, 2.5], "double", [1.0, 2.5]),
        (["a", None], "string", ["a", None]),
        ([None], "null", [None]),
        ([True, 1], "string", ["true", "1"]),
        (["a", 1, {"b": ("é",)}], "string", ["a", "1", '{"b": ["é"]}']),
        ([NOON], "timestamp[us]", [NOON]),
        ([NOON, NOON.date()], "string", ['"2020-01-01 12:00:00"', '"2020-01-01"']),
        ([b"x"], "binary", [b"x"]),
    ],
)
def test_types_are_inferred_by_the_documented_rule(values: list[object], kind: str, out: list[object]) -> None:
    """E1: and no other type."""
    arrays, unfit = Columns(["a"], "p_").fill([{"a": value} for value in values])
    assert str(arrays["p_a"].type) == kind
    assert arrays["p_a"].to_pylist() == out
    assert not unfit


@pytest.mark.parametrize(
    ("kind", "values", "out", "unfit"),
    [
        ("int64", ["12", 1.5, 2.0, "x"], [12, None, 2, None], {1, 3}),
        ("int8", [1, 300], [1, None], {1}),
        ("double", [1, "2.5", "x"], [1.0, 2.5, None], {2}),
        ("bool", [True, "false", "x"], [True, False, None], {2}),
        ("date32", ["2020-02-29", "2021-02-29"], [datetime.date(2020, 2, 29), None], {1}),
        ("string", ["a", 1, ("b",), None], ["a", "1", '["b"]', None], set()),
        (pa.large_string(), [1], ["1"], set()),
        (pa.list_(pa.string()), [("a", "b"), "c", None], [["a", "b"], None, None], {1}),
        (pa.struct({"x": pa.int64()}), [{"x": 1, "y": 2}, 5], [{"x": 1}, None], {1}),
    ],
)
def test_values_become_the_declared_type_or_null(kind: Any, values: Any, out: Any, unfit: set[int]) -> None:
    """E1: no value is truncated or guessed; one that does not fit is an error."""
    arrays, said = Columns({"a": kind}, "").fill([{"a": value} for value in values])
    assert arrays["a"].to_pylist() == out
    assert said == unfit


def test_a_value_that_does_not_fit_is_said_in_its_row(client: BlockingProfileClient) -> None:
    """E1: the profile's other attributes are there."""
    table = pa.table({"k": ["u1", "5"]})
    enriched = enrich_table(table, client=client, key="k", fields={"tier": "int64", "since": "date32"})
    assert enriched.to_pydict() == {
        "k": ["u1", "5"],
        "profile_tier": [None, 7],
        "profile_since": [datetime.date(2020, 2, 29), None],
        "profile_reason": ["field_type", None],
    }


def test_without_fields_all_attributes_come(client: BlockingProfileClient) -> None:
    """E1: with their types inferred, nested ones as JSON."""
    enriched = enrich_table(pa.table({"k": ["u1"]}), client=client, key="k")
    assert enriched.to_pylist() == [
        {
            "k": "u1",
            "profile_tier": "gold",
            "profile_ltv": 3,
            "profile_since": "2020-02-29",
            "profile_tags": '["a", {"b": 1}]',
            "profile_reason": None,
        }
    ]


# --- polars and pandas ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_E1_polars_frames_keep_rows_and_types(client: BlockingProfileClient) -> None:
    """E1: also categories, and objects of any type."""
    pl = polars()
    frame = pl.DataFrame({"k": ["u1", None, "nobody", "u1"], "n": [1, 2, 3, 4]})
    for column in (frame, frame.with_columns(pl.col("k").cast(pl.Categorical))):
        enriched = enrich_table(column, client=client, key="k", fields={"ltv": "int64"})
        assert enriched.columns == ["k", "n", "profile_ltv", "profile_reason"]
        assert enriched.schema["profile_ltv"] == pl.Int64
        assert enriched.schema["k"] == column.schema["k"]
        assert enriched["profile_ltv"].to_list() == [3, None, None, 3]
        dropped = enrich_table(
            column, client=client, key="k", fields={"ltv": "int64"}, options=EnrichOptions(on_missing="drop")
        )
        assert dropped["n"].to_list() == [1, 2, 4]
    mixed = pl.DataFrame({"k": pl.Series([5, "u1", None, 1.5], dtype=pl.Object)})
    enriched = enrich_table(mixed, client=client, key="k", fields=["tier"])
    assert enriched["profile_tier"].to_list() == ["7", "gold", None, None]
    with pytest.raises(ConfigurationError, match="collect a LazyFrame first"):
        enrich_table(frame.lazy(), client=client, key="k")


def test_E1_pandas_frames_keep_rows_index_and_types(client: BlockingProfileClient) -> None:
    """E1: whole numbers stay whole beside nulls."""
    pd = pandas()
    frame = pd.DataFrame({"k": ["u1", None, "nobody", "u1"], "n": [1, 2, 3, 4]}, index=[7, 7, 8, 9])
    enriched = enrich_table(frame, client=client, key="k", fields={"ltv": "int64"})
    assert list(enriched.columns) == ["k", "n", "profile_ltv", "profile_reason"]
    assert list(frame.columns) == ["k", "n"]
    assert list(enriched.index) == [7, 7, 8, 9]
    assert str(enriched["profile_ltv"].dtype) == "int64[pyarrow]"
    assert enriched["profile_ltv"].fillna(-1).tolist() == [3, -1, -1, 3]
    dropped = enrich_table(
        frame, client=client, key="k", fields={"ltv": "int64"}, options=EnrichOptions(on_missing="drop")
    )
    assert list(dropped.index) == [7, 7, 9]


def test_E1_pandas_columns_of_mixed_types_are_read_value_by_value(client: BlockingProfileClient) -> None:
    """E1: Python compares 5 and 5.0, or 1 and True, as equal; as keys they differ."""
    pd = pandas()
    uuid = UUID("12345678123456781234567812345678")
    keys = [5, "5", 5.0, True, None, pd.NA, float("nan"), uuid, ["u1"], "u1"]
    frame = pd.DataFrame({"k": pd.Series(keys, dtype=object)})
    enriched = enrich_table(frame, client=client, key="k", fields=["tier"])
    assert [None if pd.isna(reason) else reason for reason in enriched["profile_reason"]] == [
        None,
        None,
        "invalid_key",
        "invalid_key",
        "missing_key",
        "missing_key",
        "missing_key",
        "not_found",
        "invalid_key",
        None,
    ]


def test_the_package_needs_no_pyarrow_until_a_table_comes() -> None:
    """E4: the error names the extra."""
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "import profile_enrich.pipeline.frames, profile_enrich.pipeline.spark, profile_enrich.pipeline.ray\n"
        "import profile_enrich.pipeline.dask\n"
        "from profile_enrich import MissingExtraError\n"
        "from profile_enrich.pipeline.tables.table_plan import TablePlan\n"
        "try: TablePlan('k')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "enriching tables needs an extra: pip install 'profile-enrich[arrow]'\n"


@pytest.mark.parametrize(
    ("module", "function", "extra"),
    [("spark", "enrich_dataframe", "spark"), ("ray", "enrich_dataset", "ray"), ("dask", "enrich_dataframe", "dask")],
)
def test_an_engine_that_is_not_installed_is_named(
    module: str, function: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E4: each has an extra of its own."""
    import importlib

    from profile_enrich.pipeline.workers.client_config import ClientConfig

    adapter = importlib.import_module(f"profile_enrich.pipeline.{module}")
    for name in ("pyspark", "ray", "dask"):
        monkeypatch.setitem(sys.modules, name, None)
    config = ClientConfig("store", options={"store": "profiles.db", "collection": "users"})
    with pytest.raises(MissingExtraError, match=rf"profile-enrich\[{extra}\]"):
        getattr(adapter, function)(object(), config=config, key="k", fields={"a": "string"})
