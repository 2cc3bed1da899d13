"""Encrypted entries are opaque, and anything else is rejected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich import ConfigurationError
from profile_enrich.cache.shared.sealing import Plaintext, Sealer, check_secrets

pytest.importorskip("cryptography", reason="the shared cache needs cryptography: pip install 'profile-enrich[redis]'")

NEW, OLD = b"n" * 40, b"o" * 40
LIMIT = 2**20
KEY = ("census", "id", "ada@example.com")


@given(st.binary(max_size=4096))
def test_S3_what_was_sealed_opens_under_its_own_name_only(plain: bytes) -> None:
    for sealing in (Sealer([NEW]), Plaintext()):
        sealed = sealing.seal(plain, "a")
        assert sealing.open(sealed, "a", LIMIT) == plain
        assert sealing.open(sealed, "b", LIMIT) is None


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_S3_a_changed_byte_is_noticed(plain: bytes, data: st.DataObject) -> None:
    sealer = Sealer([NEW])
    sealed = bytearray(sealer.seal(plain, "a"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    assert sealer.open(bytes(sealed), "a", LIMIT) is None


@given(st.binary(max_size=200))
def test_S2_garbage_is_no_answer(garbage: bytes) -> None:
    assert Sealer([NEW]).open(garbage, "a", LIMIT) is None
    assert Plaintext().open(garbage, "a", LIMIT) is None


def test_S3_neither_ids_nor_values_can_be_read() -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(b"Ada Lovelace", sealer.names(KEY)[0])
    assert b"Ada" not in sealed
    assert "ada" not in sealer.names(KEY)[0]
    assert sealer.names(KEY) != Sealer([OLD]).names(KEY)
    assert NEW.decode() not in repr(sealer)


def test_S3_a_secret_can_be_rotated() -> None:
    before, between, after = Sealer([OLD]), Sealer([NEW, OLD]), Sealer([NEW])
    sealed = before.seal(b"gold", "a")
    assert between.open(sealed, "a", LIMIT) == b"gold"
    assert after.open(sealed, "a", LIMIT) is None
    assert before.names(KEY)[0] in between.names(KEY)


def test_what_opens_to_more_than_the_limit_is_refused() -> None:
    sealer = Sealer([NEW])
    bomb = sealer.seal(bytes(10_000_000), "a")
    assert len(bomb) < 100_000
    assert sealer.open(bomb, "a", LIMIT) is None


@pytest.mark.parametrize("secrets", [[], "", [""], ["short"], [None], None, [b"b" * 40]])
def test_A25_a_secret_that_is_none_is_refused(secrets: object) -> None:
    with pytest.raises(ConfigurationError, match="secrets"):
        check_secrets(secrets)  # type: ignore[arg-type]
