# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
# Elements are of any type, and the engine's own types are not seen here.
"""Apache Beam: elements with their customers' profiles, those without one, and those whose lookup failed.

Source: the Beam programming guide (4.2.1 ParDo, 4.5 additional outputs, 8 windowing) and its Enrichment transform.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .._utils.optional_import import engine
from .._utils.validation import check_int, check_number
from ..errors import ConfigurationError, InvalidKeyError
from ..profile import Profile, ProfileKey, Reason
from .keys import KeyOf, key_of, key_reader
from .workers.worker_clients import ClientConfig
from .workers.worker_lookup import WorkerLookup, config_of, fields_of

_beam = engine("apache_beam", "the Beam transform", "beam")
_ReshufflePerKey = engine("apache_beam.transforms.util", "the Beam transform", "beam").ReshufflePerKey
_windowed_value = engine("apache_beam.utils.windowed_value", "the Beam transform", "beam").WindowedValue

__all__ = ["ENRICHED", "FAILED", "MISSING", "EnrichProfiles", "Failed"]

ENRICHED = "enriched"
MISSING = "missing"
FAILED = "failed"

_SPREAD = 64
"""Elements without a usable key need no lookup; in so many groups no worker gets all of them."""


class Failed(NamedTuple):
    """An element that could not be enriched.

    Args:
        element: as it came.
        code: the error's stable code, e.g. `"source_timeout"`, `"missing_key"`.
        reason: what happened, without keys, attribute values and secrets.
    """

    element: Any
    code: str
    reason: str

    def __repr__(self) -> str:
        return f"<Failed {self.code}>"  # the element is personal, and Beam's errors quote elements


_PTransform: Any = _beam.PTransform
_DoFn: Any = _beam.DoFn


class EnrichProfiles(_PTransform):  # type: ignore[misc]  # its types are not seen here
    """Look up the profile of each element. Every element comes out once, in one of three outputs.

    ```python
    people = orders | EnrichProfiles(config, key="user_id", fields=["tier"])
    people.enriched, people.missing, people.failed
    ```

    `enriched` holds the elements with their profile: a dict gets one item more, a `beam.Row` or named tuple becomes a
    `beam.Row` with one field more, anything else becomes a pair of itself and the attributes. `missing` holds the
    elements, as they came, whose profile the source does not have or withholds. `failed` holds a `Failed` for each
    element whose key is missing or unusable, or whose lookup failed. Windows and timestamps stay as they are.

    Args:
        config: how each worker makes its client. `rate` and `concurrency` are of the whole job: say with `workers` how
            many processes share them.
        key: a field's name (of a mapping, else an attribute), or a function of the element.
        fields: the attributes to take over. Default: all.
        into: the name under which the attributes come. Default `"profile"`. An element that has this name already
            keeps its own value.
        keyed: brings all elements of a key to the same worker, through a shuffle, so that the job looks each key up
            once. Default true. False saves the shuffle, and each worker may look up each key.
        batch: elements of a bundle that are looked up together, at most. Default 1,000.
        retry_timeout: seconds for which a source that fails is waited for, since it last answered. Default 60.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
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
    """Puts before each element the text by which it is shuffled."""

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
    """Holds a bundle's elements back until there are enough of them to look up together."""

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
                # What is tagged with the name of the main output is lost.
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
