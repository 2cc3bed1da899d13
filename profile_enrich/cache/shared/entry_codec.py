"""Encoding and decoding of second-level entries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from ..._utils.freeze import thaw
from ...profile import Reason, Record
from ...sources.freshness import Validators

__all__ = ["SharedAnswer", "decode_answer", "encode_answer"]

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedAnswer:
    """An entry of the second level. Times are in seconds since the epoch, since processes share no monotonic clock.

    Args:
        record: the record from the source; `None` for a negative entry.
        reason: why there is no record.
        fresh_until: the end of freshness.
        stale_until: the end of stale-while-revalidate.
        evict_at: the time until which it may be served while the source fails.
        tags: names under which it can be invalidated together with others.
        validators: for a conditional request.
        epoch: the epoch of the backplane at its load.
        sequence: the last sequence number that its process had seen at the start of the load.
    """

    record: Record | None
    reason: Reason | None
    fresh_until: float
    stale_until: float
    evict_at: float
    tags: frozenset[str]
    validators: Validators | None
    epoch: str
    sequence: int


def encode_answer(answer: SharedAnswer) -> bytes | None:
    """Encode an entry as JSON; `None` if its attributes are not JSON, which only custom sources return."""
    record, validators = answer.record, answer.validators
    content: list[Any] = [
        VERSION,
        answer.epoch,
        answer.sequence,
        answer.fresh_until,
        answer.stale_until,
        answer.evict_at,
        None if answer.reason is None else answer.reason.value,
        sorted(answer.tags),
        None if validators is None else [validators.etag, validators.last_modified],
        None
        if record is None
        else [record.id, record.source, record.truncated, record.loaded_at, thaw(record.attributes)],
    ]
    try:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError):
        return None


def decode_answer(data: bytes) -> SharedAnswer | None:
    """Decode an entry; `None` if another version wrote it."""
    try:
        content = cast("list[Any]", json.loads(data.decode()))  # `loads` guesses the encoding of bytes
        version, epoch, sequence, fresh, stale, evict, reason, tags, validators, record = content
        if version != VERSION:
            return None
        return SharedAnswer(
            record=None if record is None else _record(*record),
            reason=None if reason is None else Reason(reason),
            fresh_until=fresh,
            stale_until=stale,
            evict_at=evict,
            tags=frozenset(tags),
            validators=None if validators is None else Validators(*validators),
            epoch=epoch,
            sequence=sequence,
        )
    except (TypeError, ValueError, RecursionError):
        return None


def _record(id: str | None, source: str, truncated: bool, loaded_at: float, attributes: dict[str, Any]) -> Record:
    return Record(attributes, id=id, source=source, truncated=truncated, loaded_at=loaded_at)
