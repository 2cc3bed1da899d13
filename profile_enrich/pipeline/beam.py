# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
# Elements have any type, and the engine's types are not available here.
"""Apache Beam transform: enriched, missing and failed elements as three outputs.

Reference: the Beam programming guide (4.2.1 ParDo, 4.5 additional outputs, 8 windowing) and its Enrichment transform.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .._utils.optional_import import import_extra
from .._utils.validation import check_int, check_number
from ..errors import ConfigurationError, InvalidKeyError
from ..profile import Profile, ProfileKey, Reason
from .keys import KeyOf, key_of, key_reader
from .workers.worker_clients import ClientConfig
from .workers.worker_lookup import WorkerLookup, config_of, fields_of

_beam = import_extra("apache_beam", "the Beam transform", "beam")
_ReshufflePerKey = import_extra("apache_beam.transforms.util", "the Beam transform", "beam").ReshufflePerKey
_windowed_value = import_extra("apache_beam.utils.windowed_value", "the Beam transform", "beam").WindowedValue

__all__ = ["ENRICHED", "FAILED", "MISSING", "EnrichProfiles", "Failed"]

ENRICHED = "enriched"
MISSING = "missing"
FAILED = "failed"

_SPREAD = 64
"""The number of groups of elements without a valid key, which spreads them over the workers."""


class Failed(NamedTuple):
    """An element that could not be enriched.

    Args:
        element: the input element, unchanged.
        code: the error's stable code, e.g. `"source_timeout"`, `"missing_key"`.
        reason: what happened, without keys, attribute values and secrets.
    """

    element: Any
    code: str
    reason: str

    def __repr__(self) -> str:
        return f"<Failed {self.code}>"  # the element holds personal data, and Beam's errors quote elements


_PTransform: Any = _beam.PTransform
_DoFn: Any = _beam.DoFn


class EnrichProfiles(_PTransform):  # type: ignore[misc]  # its types are not seen here
    """Look up the profile of each element, and emit it to one of three outputs.

    ```python
    people = orders | EnrichProfiles(config, key="user_id", fields=["tier"])
    people.enriched, people.missing, people.failed
    ```

    `enriched` has the elements with their profile: a dict gets another item, a `beam.Row` or named tuple becomes a
    `beam.Row` with another field, and any other element becomes a pair of itself and the attributes. `missing` has the
    unchanged elements whose profile is missing or excluded. `failed` has a `Failed` for each element with a missing or
    invalid key, or a failed lookup. Windows and timestamps are preserved.

    Args:
        config: the client configuration of the workers. `rate` and `concurrency` apply to the whole job; set `workers`
            to the number of processes that share them.
        key: a field's name (of a mapping, else an attribute), or a function of the element.
        fields: the attributes to add. Default: all.
        into: the name of the added item or field. Default `"profile"`. An existing value of this name is kept.
        keyed: shuffle all elements of a key to one worker, so that the job looks up each key once. Default true. False
            avoids the shuffle, but each worker may look up each key.
        batch: the largest number of elements to look up together. Default 1,000.
        retry_timeout: how long to retry a failing source after its last response, in seconds. Default 60.

    Raises:
        ConfigurationError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        key: KeyOf,
        fields: list[str] | tuple[str, ...] | None = None,
        into: str = "profile",
        keyed: bool = True,
        batch: int = 1000,
        retry_timeout: float = 60.0,
    ) -> None:
        super().__init__()
        key_reader(key)
        if not isinstance(into, str) or not into.isidentifier():
            raise ConfigurationError("into must be a name that a field could have, e.g. 'profile'")
        self._worker_lookup = WorkerLookup(
            config_of(config), fields_of(fields), check_number("retry_timeout", retry_timeout)
        )
        self._key: Any = key
        self._into = into
        self._keyed = keyed
        self._batch = check_int("batch", batch)

    def expand(self, input_or_inputs: Any) -> Any:
        """Called by Beam."""
        elements = input_or_inputs
        if self._keyed:
            elements = (
                elements
                | "Key" >> _beam.ParDo(_WithKey(self._key)).with_output_types(tuple[str, Any])
                | "Bring together" >> _ReshufflePerKey()
                | "Unkey" >> _beam.Values()
            )
        lookup = _Lookup(self._worker_lookup, self._key, self._into, self._batch)
        return elements | "Look up" >> _beam.ParDo(lookup).with_outputs(MISSING, FAILED, main=ENRICHED)


class _WithKey(_DoFn):  # type: ignore[misc]  # its types are not seen here
    """Pair each element with its shuffle key."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self._read: Callable[[Any], object] | None = None

    def process(self, element: Any) -> Iterator[tuple[str, Any]]:
        if self._read is None:
            self._read = key_reader(self._key)
        try:
            key = ProfileKey.of(key_of(self._read(element)))
        except InvalidKeyError:
            yield f"-{random.randrange(_SPREAD)}", element  # noqa: S311  # only spreads them
        else:
            yield f"{key.type}:{key.value}", element


class _Lookup(_DoFn):  # type: ignore[misc]  # its types are not seen here
    """Buffer the elements of a bundle, and look them up in batches."""

    def __init__(self, lookup: WorkerLookup, key: Any, into: str, batch: int) -> None:
        self._worker_lookup = lookup
        self._key = key
        self._into = into
        self._batch = batch

    def setup(self) -> None:
        self._worker_lookup.open()
        self._read = key_reader(self._key)

    def start_bundle(self) -> None:
        self._held: dict[str | ProfileKey, list[tuple[Any, Any, Any]]] = {}
        self._count = 0

    def process(
        self,
        element: Any,
        timestamp: Any = _beam.DoFn.TimestampParam,
        window: Any = _beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        try:
            key = key_of(self._read(element))
        except InvalidKeyError as error:
            yield _beam.pvalue.TaggedOutput(FAILED, Failed(element, error.code, error.message))
            return
        self._held.setdefault(key, []).append((element, timestamp, window))
        self._count += 1
        if self._count >= self._batch:
            yield from self._look_up()

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._look_up()

    def _look_up(self) -> Iterator[Any]:
        held = self._held
        self.start_bundle()
        profiles = self._worker_lookup.profiles(list(held)) if held else {}
        for key, places in held.items():
            profile = profiles[key]
            for element, timestamp, window in places:
                tag, value = self._classified(element, profile)
                placed = _windowed_value(value, timestamp, (window,))
                # Beam loses elements tagged with the name of the main output.
                yield placed if tag == ENRICHED else _beam.pvalue.TaggedOutput(tag, placed)

    def _classified(self, element: Any, profile: Profile) -> tuple[str, Any]:
        if profile.found:
            return ENRICHED, _joined(element, self._into, self._worker_lookup.attributes(profile))
        error = profile.error
        if profile.reason is Reason.UNAVAILABLE and error is not None:
            return FAILED, Failed(element, error.code, error.message)
        return MISSING, element


def _joined(element: Any, name: str, attributes: dict[str, Any]) -> Any:
    if isinstance(element, Mapping):
        return {name: attributes, **element}
    as_dict = getattr(element, "_asdict", None)
    if as_dict is not None:  # a beam.Row or a named tuple
        return _beam.Row(**{name: attributes, **as_dict()})
    return (element, attributes)
