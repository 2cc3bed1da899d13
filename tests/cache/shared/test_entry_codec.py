"""Results are unchanged after a round trip through the second cache level."""

from __future__ import annotations

from datetime import date
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_enrich import Reason, Record
from profile_enrich._utils.freeze import thaw
from profile_enrich.cache.shared.entry_codec import SharedAnswer, decode_answer, encode_answer
from profile_enrich.sources.freshness import Validators

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
ATTRIBUTES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_size=6,
)


def answer_of(record: Record | None, **changes: Any) -> SharedAnswer:
    fields: dict[str, Any] = {
        "record": record,
        "reason": None if record is not None else Reason.NOT_FOUND,
        "fresh_until": 10.5,
        "stale_until": 20.5,
        "evict_at": 30.5,
        "tags": frozenset({"a", "b"}),
        "validators": Validators('"etag"', None),
        "epoch": "e1",
        "sequence": 7,
    }
    return SharedAnswer(**{**fields, **changes})


@given(ATTRIBUTES)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_record_comes_back_as_it_was(attributes: dict[str, Any]) -> None:
    answer = answer_of(Record(attributes, id="i", source="census", truncated=True, loaded_at=5.0))
    data = encode_answer(answer)
    assert data is not None
    back = decode_answer(data)
    assert back is not None
    assert back.record is not None
    assert answer.record is not None
    assert thaw(back.record.attributes) == thaw(answer.record.attributes)
    assert (back.record.id, back.record.source, back.record.truncated, back.record.loaded_at) == (
        "i",
        "census",
        True,
        5.0,
    )
    for name in ("reason", "fresh_until", "stale_until", "evict_at", "tags", "validators", "epoch", "sequence"):
        assert getattr(back, name) == getattr(answer, name), name


def test_a_negative_answer_comes_back_with_its_reason() -> None:
    data = encode_answer(answer_of(None, reason=Reason.EXCLUDED, validators=None, tags=frozenset()))
    assert data is not None
    back = decode_answer(data)
    assert back is not None
    assert (back.record, back.reason, back.validators, back.tags) == (None, Reason.EXCLUDED, None, frozenset())


def test_what_is_not_json_is_not_stored() -> None:
    assert encode_answer(answer_of(Record({"born": date(1815, 12, 10)}))) is None
    assert encode_answer(answer_of(Record({"score": float("nan")}))) is None


@given(
    st.binary(max_size=100) | st.sampled_from([b"[]", b"{}", b"null", b"[1,2]", b"[2,0,0,0,0,0,0,0,0,0]", b"[" * 2000])
)
def test_S2_what_was_not_written_by_this_version_is_no_answer(data: bytes) -> None:
    assert decode_answer(data) is None
