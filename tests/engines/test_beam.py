"""The Beam transform and the handler for Beam's own Enrichment, on the local runners."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from profile_enrich import ProfileKey
from profile_enrich.errors import ConfigurationError, MissingVariable, SourceAuthError, SourceUnavailable
from profile_enrich.pipeline.workers import ClientConfig
from profile_enrich.testing import VendorServer, faults

from . import needs
from .conftest import UNKNOWN, Job, config_for, lookups, run_page, usable

needs("beam", "apache_beam")

import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.testing.util import assert_that, equal_to  # noqa: E402
from apache_beam.transforms.enrichment import Enrichment  # noqa: E402
from apache_beam.transforms.window import FixedWindows, SlidingWindows, TimestampedValue  # noqa: E402

from profile_enrich.pipeline.beam import EnrichProfiles, Failed  # noqa: E402
from profile_enrich.pipeline.beam_enrichment import ProfileHandler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # Beam's own

OUTPUTS = ("enriched", "missing", "failed")
IN_PROCESS = PipelineOptions(["--runner=FnApiRunner"])


class Order(NamedTuple):
    user_id: Any
    amount: float


def run(elements: list[Any], transform: EnrichProfiles, tmp: Path) -> dict[str, list[Any]]:
    """Return the elements of each output."""
    with beam.Pipeline(options=IN_PROCESS) as pipeline:
        _write(pipeline | beam.Create(elements, reshuffle=False) | transform, tmp)
    return _written(tmp)


def _write(found: Any, tmp: Path) -> None:
    for name in OUTPUTS:
        lines = found[name] | f"Text of {name}" >> beam.Map(_text)
        lines | f"Write {name}" >> beam.io.WriteToText(str(tmp / name))


def _written(tmp: Path) -> dict[str, list[Any]]:
    return {
        name: [json.loads(line) for file in sorted(tmp.glob(f"{name}-*")) for line in file.read_text().splitlines()]
        for name in OUTPUTS
    }


def _text(element: Any) -> str:
    if isinstance(element, Failed):
        return json.dumps({"element": element.element, "code": element.code, "reason": element.reason})
    return json.dumps(element)


def check_all(job: Job, out: dict[str, list[Any]]) -> None:
    """E1: each record is in the right output once, with the vendor's values."""
    enriched = {record["position"]: record for record in out["enriched"]}
    missing = {record["position"]: record for record in out["missing"]}
    failed = {failure["element"]["position"]: failure for failure in out["failed"]}
    assert sum(map(len, out.values())) == len(enriched) + len(missing) + len(failed) == len(job.records)
    for record in job.records:
        position, key = record["position"], record.get("user_id")
        if not usable(key):
            assert failed[position]["element"] == record
            assert failed[position]["code"] == ("invalid_key" if key == 1.5 else "missing_key")
        elif str(key).startswith(UNKNOWN):
            assert missing[position] == record
        else:
            assert enriched[position] == {**record, "profile": job.profiles[str(key)]}


# --- proof --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", [True, False])
def test_E1_E2_E4_5000_records_come_out_once_with_one_call_a_key(
    job: Job, vendor: VendorServer, config: ClientConfig, tmp_path: Path, keyed: bool
) -> None:
    out = run(job.records, EnrichProfiles(config, key="user_id", keyed=keyed), tmp_path)
    check_all(job, out)
    assert lookups(vendor) == len(job.keys)
    assert vendor.max_in_flight <= 64


@pytest.mark.parametrize("keyed", [True, False])
def test_E2_E3_two_workers_share_the_budget(job: Job, vendor: VendorServer, tmp_path: Path, keyed: bool) -> None:
    vendor.always(faults.Latency(0.01))
    config = config_for(vendor, rate=400, concurrency=8, workers=2)
    options = PipelineOptions(
        ["--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    )
    with beam.Pipeline(options=options) as pipeline:
        found = pipeline | beam.Create(job.records) | EnrichProfiles(config, key="user_id", keyed=keyed)
        _write(found, tmp_path)
        processes = found.enriched | beam.Map(lambda element: str(os.getpid())) | beam.Distinct()
        processes | "Write processes" >> beam.io.WriteToText(str(tmp_path / "processes"))
    check_all(job, _written(tmp_path))
    workers = {line for file in tmp_path.glob("processes-*") for line in file.read_text().split()}
    calls = [call for call in vendor.calls if "/record" in call.path]
    print(f"\nkeyed={keyed}: {len(calls)} calls for {len(job.keys)} keys in {len(workers)} processes")  # noqa: T201  # to be read
    assert len(workers) == 2
    assert str(os.getpid()) not in workers
    assert len(calls) == len(job.keys) if keyed else len(job.keys) <= len(calls) <= 2 * len(job.keys)
    assert vendor.max_in_flight <= 8
    times = sorted(call.at for call in calls)
    for first, begin in enumerate(times):
        assert sum(begin <= at < begin + 1 for at in times[first:]) <= 400 + 2 * 10 + 1  # and the burst of each


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faults.ServerError(), "source_unavailable"),
        (faults.Hang(), "source_timeout"),
        (faults.Garbage(), "source_response"),
        (faults.RateLimited(retry_after=30), "source_rate_limited"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, faults.Fault) else str(value),
)
def test_E1_a_fault_of_one_key_lands_in_failed_and_the_job_survives(
    vendor: VendorServer, tmp_path: Path, fault: faults.Fault, code: str
) -> None:
    bad = "3"
    vendor.script(then=fault, key=bad)
    deadline = 1.0 if isinstance(fault, faults.Hang) else 30.0
    config = config_for(
        vendor,
        client={
            "deadline": deadline,
            "source_policy": {"breaker": {"failures": 0, "open_for": 0.05, "max_open": 0.05}},
        },
    )
    elements = [{"user_id": str(n % 6)} for n in range(60)] + [{"user_id": UNKNOWN}]
    out = run(elements, EnrichProfiles(config, key="user_id", retry_timeout=0.2), tmp_path)
    assert [failure["code"] for failure in out["failed"]] == [code] * 10
    assert {failure["element"]["user_id"] for failure in out["failed"]} == {bad}
    assert len(out["enriched"]) == 50
    assert out["missing"] == [{"user_id": UNKNOWN}]
    vendor.release()


def test_E3_a_429_with_retry_after_is_waited_for(vendor: VendorServer, config: ClientConfig, tmp_path: Path) -> None:
    vendor.script(faults.RateLimited(retry_after=1), faults.ServerError())
    out = run([{"user_id": str(n)} for n in range(20)], EnrichProfiles(config, key="user_id"), tmp_path)
    assert (len(out["enriched"]), out["missing"], out["failed"]) == (20, [], [])


def test_401_ends_the_job(vendor: VendorServer, config: ClientConfig, tmp_path: Path) -> None:
    vendor.always(faults.Unauthorized())
    with pytest.raises(SourceAuthError):
        run([{"user_id": "1"}], EnrichProfiles(config, key="user_id"), tmp_path)


def test_a_missing_secret_is_named_before_the_first_element(
    config: ClientConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENGINE_TEST_KEY")
    with pytest.raises(MissingVariable, match="has no ENGINE_TEST_KEY"):
        run([{"user_id": "1"}], EnrichProfiles(config, key="user_id"), tmp_path)


def test_E1_a_bundle_that_is_tried_again_loses_and_doubles_nothing(
    job: Job, vendor: VendorServer, config: ClientConfig, tmp_path: Path
) -> None:
    crashes = tmp_path / "crashes"
    records = job.records[:1_000]

    def fragile(element: Any) -> Any:
        # After the lookup, in the same bundle: the runner discards what was emitted before.
        if element["position"] == 500 and not crashes.exists():
            crashes.write_text("once")
            raise RuntimeError("a worker dies")
        return element

    with beam.Pipeline(runner="BundleBasedDirectRunner") as pipeline:
        found = pipeline | beam.Create(records) | EnrichProfiles(config, key="user_id")
        whole = (
            (
                found.enriched | beam.Map(fragile),
                found.missing,
                found.failed | beam.Map(lambda failure: failure.element),
            )
            | beam.Flatten()
            | beam.Map(lambda element: element["position"])
        )
        assert_that(whole, equal_to([record["position"] for record in records]))
    assert crashes.exists()
    assert lookups(vendor) == len(Job(records, {}).keys)  # what the first try looked up, the second found in the cache


# --- windows, types, options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize(
    ("windows", "starts"),
    [
        (FixedWindows(10), lambda at: [at // 10 * 10]),
        (SlidingWindows(20, 10), lambda at: [at // 10 * 10, at // 10 * 10 - 10]),
    ],
)
def test_windows_and_timestamps_stay_as_they_are(
    vendor: VendorServer, config: ClientConfig, keyed: bool, windows: Any, starts: Any
) -> None:
    class Seen(beam.DoFn):
        def process(
            self, element: Any, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
        ) -> Any:
            yield (element["n"], "profile" in element, float(timestamp), float(window.start))

    keys = ["1", UNKNOWN, "2"]
    with beam.Pipeline(options=IN_PROCESS) as pipeline:
        found = (
            pipeline
            | beam.Create([TimestampedValue({"n": n, "user_id": keys[n % 3]}, n) for n in range(40)])
            | beam.Map(lambda timed: timed)
            | beam.WindowInto(windows)
            | EnrichProfiles(config, key="user_id", keyed=keyed, batch=7)
        )
        seen = (found.enriched, found.missing) | beam.Flatten() | beam.ParDo(Seen())
        expected = [(n, n % 3 != 1, float(n), float(start)) for n in range(40) for start in starts(n)]
        assert_that(seen, equal_to(expected))


def test_rows_named_tuples_and_other_elements_get_their_profile_in_their_own_way(
    vendor: VendorServer, config: ClientConfig
) -> None:
    expected = {"tier": "none", "tags": ["a", 1], "nosuch": None}
    for number, (element, whole) in enumerate(
        [
            (beam.Row(user_id="1", amount=2.0), {"who": expected, "user_id": "1", "amount": 2.0}),
            (Order(1, 3.0), {"who": expected, "user_id": 1, "amount": 3.0}),
            ("1", ("1", expected)),
            ({"user_id": "1", "who": "own"}, {"user_id": "1", "who": "own"}),
        ]
    ):
        transform = EnrichProfiles(config, key=_key, fields=["tier", "tags", "nosuch"], into="who")
        with beam.Pipeline(options=IN_PROCESS) as pipeline:
            found = pipeline | beam.Create([element]) | transform
            seen = found.enriched | beam.Map(lambda it: it._asdict() if hasattr(it, "_asdict") else it)
            assert_that(seen, equal_to([whole]), label=f"of element {number}")


def _key(element: Any) -> Any:
    if isinstance(element, str):
        return ProfileKey(element)
    return element["user_id"] if isinstance(element, dict) else element.user_id


def test_A18_no_output_of_the_job_says_who_it_was_about(
    vendor: VendorServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vendor.always(faults.ServerError())
    planted = "planted-4711"
    with caplog.at_level(logging.DEBUG, "profile_enrich"):
        out = run(
            [{"user_id": planted}, {"user_id": [planted]}],
            EnrichProfiles(config_for(vendor), key="user_id", retry_timeout=0),
            tmp_path,
        )
    assert len(out["failed"]) == 2
    assert not any(planted in failure["reason"] + failure["code"] for failure in out["failed"])
    assert not any(planted in record.getMessage() for record in caplog.records if record.name == "profile_enrich")
    assert planted not in repr(Failed({"user_id": planted}, "source_timeout", "no answer"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"config": "census"},
        {"key": ""},
        {"into": "no name"},
        {"fields": "tier"},
        {"fields": []},
        {"batch": 0},
        {"retry_timeout": -1},
    ],
)
def test_a_mistake_is_named_before_the_job_starts(config: ClientConfig, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        EnrichProfiles(**{"config": config, "key": "user_id", **arguments})
    if "into" not in arguments:
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            ProfileHandler(**{"config": config, "key": "user_id", "fields": ["tier"], **arguments})


def test_the_handler_needs_its_fields_and_a_text_as_prefix(config: ClientConfig) -> None:
    with pytest.raises(ConfigurationError, match="fields"):
        ProfileHandler(config, key="user_id", fields=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="prefix"):
        ProfileHandler(config, key="user_id", fields=["tier"], prefix=3)  # type: ignore[arg-type]


# --- Beam's own Enrichment ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 50])
def test_E2_E4_beams_enrichment_with_our_handler_asks_once_a_key(
    vendor: VendorServer, config: ClientConfig, batch: int
) -> None:
    keys = [str(n % 7) for n in range(200)] + [UNKNOWN]
    with beam.Pipeline(options=IN_PROCESS) as pipeline:
        rows = (
            pipeline
            | beam.Create([beam.Row(user_id=key, n=n) for n, key in enumerate(keys)])
            | Enrichment(ProfileHandler(config, key="user_id", fields=["tier", "score"], prefix="p_", batch=batch))
        )
        expected = [
            {
                "user_id": key,
                "n": n,
                "p_tier": vendor.profiles.get(key, {}).get("tier"),
                "p_score": vendor.profiles.get(key, {}).get("score"),
            }
            for n, key in enumerate(keys)
        ]
        assert_that(rows | beam.Map(lambda row: row._asdict()), equal_to(expected))
    assert lookups(vendor) == 8


def test_the_handlers_cache_key_is_the_key(config: ClientConfig) -> None:
    handler = ProfileHandler(config, key="user_id", fields=["tier"])
    assert handler.get_cache_key(beam.Row(user_id=7, n=1)) == "id:7"
    assert handler.get_cache_key([beam.Row(user_id="a"), beam.Row(user_id="b")]) == ["id:a", "id:b"]


def test_a_failure_under_beams_enrichment_ends_the_job(vendor: VendorServer) -> None:
    vendor.always(faults.ServerError())
    handler = ProfileHandler(config_for(vendor), key="user_id", fields=["tier"], retry_timeout=0)
    with pytest.raises(SourceUnavailable), beam.Pipeline(options=IN_PROCESS) as pipeline:
        pipeline | beam.Create([beam.Row(user_id="1")]) | Enrichment(handler)


def test_the_page_of_the_documentation_runs() -> None:
    run_page(Path("docs/beam.md"))
