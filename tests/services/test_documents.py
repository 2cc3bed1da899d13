"""The code of the documents that need a service runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_docs import CODE, ROOT
from tests.services.postgres import Postgres


def test_the_code_of_postgresql_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: Postgres) -> None:
    postgres.execute(
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.users (user_id bigint PRIMARY KEY, email text, tier text)",
        "CREATE INDEX ON crm.users (email)",
        "CREATE INDEX ON crm.users (tier)",
        "INSERT INTO crm.users VALUES (478060, 'ann@shop.example', 'gold')",
    )
    (tmp_path / "users.csv").write_text("user_id,email\n478060,ann@shop.example\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", postgres.dsn())
    monkeypatch.setenv("PAGE_SECRET", "a secret of the pages")
    monkeypatch.setenv("PROFILE_API_KEY", "a-key-of-this-test-only")
    for example in CODE.parse(ROOT / "docs" / "postgresql.md"):
        example.evaluate()
