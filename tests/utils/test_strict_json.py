"""JSON that Python's decoder accepts, and other programs reject or read differently."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich._utils.strict_json import StrictJsonError, strict_decoder
from tests.helpers import NOT_STRICT

_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_what_json_can_say_is_decoded_as_python_does(value: Any) -> None:
    text = json.dumps(value)
    assert strict_decoder().decode(text) == json.loads(text)


@given(_VALUES, _VALUES, st.sampled_from([*NOT_STRICT, "NaN", "-Infinity", "-1e400", '{"\\u0061":1,"a":1}']))
def test_E9_a_fault_is_found_at_any_depth(before: Any, after: Any, fault: str) -> None:
    text = f'{{"x": [{json.dumps(before)}, {{"y": {fault}, "z": {json.dumps(after)}}}]}}'
    json.loads(text)  # Python's decoder accepts it
    with pytest.raises(StrictJsonError) as caught:
        strict_decoder().decode(text)
    assert caught.value.reason.startswith(("a number is", "a name occurs twice"))
