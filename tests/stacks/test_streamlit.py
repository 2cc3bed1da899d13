"""Streamlit: the script of the page, in two sessions at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.stacks import needs

needs("streamlit")

from streamlit.testing.v1 import AppTest  # noqa: E402  # after the skip

PAGE = Path(__file__).parents[2] / "docs" / "streamlit.md"


def script() -> str:
    (code,) = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.mark.filterwarnings("default")
def test_A22_each_session_sees_its_own_person() -> None:
    """A22: the client and the cached function are shared, the person is not."""
    sessions: dict[str | None, Any] = {user: AppTest.from_string(script()) for user in ("u1", "u2", None)}
    for user, session in sessions.items():
        if user is not None:
            session.session_state["user_id"] = user
    for _ in range(2):
        for user, session in sessions.items():
            session.run(timeout=30)
            assert not session.exception
            title = {"u1": "Hello Ada", "u2": "Hello Ben"}.get(user or "", "Hello there")
            assert [each.value for each in session.title] == [title]
    assert [each.value for each in sessions["u1"].markdown] == ["lounge"]
    assert [each.value for each in sessions["u2"].markdown] == ["tea"]
    sessions["u1"].session_state["user_id"] = "u2"
    assert [each.value for each in sessions["u1"].run(timeout=30).title] == ["Hello Ben"]
