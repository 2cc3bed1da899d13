"""`TablePlan`: the distinct keys of a table, and the columns of their profiles."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from ..._utils.log_once import LogOnce
from ...errors import ConfigurationError, InvalidKeyError, ProfileEnrichError, ProfileMissing
from ...profile import Profile, ProfileKey, Reason
from ..keys import key_of
from ..options import EnrichOptions, options_of
from .columns import Columns, Fields, arrow

__all__ = ["FIELD_TYPE", "AddedColumns", "KeyBatch", "TablePlan"]

logger = logging.getLogger("profile_enrich")

FIELD_TYPE = "field_type"
"""The reason for a row with a value that does not fit the declared type of its column."""


class KeyBatch:
    """The distinct keys of a column, and each row's index into them.

    Args:
        asked: the key, or its error, by index; the last index is for rows without a key.
        places: an Arrow array with each row's index.
    """

    __slots__ = ("asked", "places")

    def __init__(self, asked: Sequence[ProfileKey | InvalidKeyError], places: Any) -> None:
        self.asked = asked
        self.places = places

    @property
    def keys(self) -> list[ProfileKey]:
        """The keys to look up."""
        return [key for key in self.asked if isinstance(key, ProfileKey)]


class AddedColumns:
    """The new columns of a table.

    Args:
        columns: Arrow arrays by column name, with one value per kept row.
        kept: an Arrow array of booleans, one per row; `None` if all rows are kept.
    """

    __slots__ = ("columns", "kept")

    def __init__(self, columns: dict[str, Any], kept: Any) -> None:
        self.columns = columns
        self.kept = kept


class TablePlan:
    """The plan of a table's enrichment: plain data and Arrow types, which engines send to their workers.

    Args:
        key: the column of the keys.
        key_type: the identifier's type, `"id"` for the source's primary key.
        fields: see `Columns`.
        prefix: the prefix of the column names.
        options: the handling of rows without a profile, and the limits of lookups. Default `EnrichOptions()`.
        reason: the column with the reason why a row has no profile; `None` for no column.

    Raises:
        ConfigurationError: an argument is invalid.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(
        self,
        key: str,
        *,
        key_type: str = "id",
        fields: Fields | None = None,
        prefix: str = "profile_",
        options: EnrichOptions | None = None,
        reason: str | None = "profile_reason",
    ) -> None:
        if not isinstance(key, str) or not key:
            raise ConfigurationError("key must be the name of the column that holds the keys")
        self.options = options_of(options).for_tables()
        self.on_missing = self.options.on_missing
        self.on_error = self.options.on_error or "null"
        if reason is not None and (not isinstance(reason, str) or not reason):
            raise ConfigurationError("reason must be the name of a column, or None")
        if reason is None and self.on_error == "null":
            raise ConfigurationError("without a reason column failed rows look like missing ones: set on_error='raise'")
        _check_type(key_type)
        self.key = key
        self.key_type = key_type
        self.columns = Columns(fields, prefix)
        self.reason = reason
        self._once = LogOnce()

    def new_columns(self, names: Collection[str]) -> list[tuple[str, Any]]:
        """Return the names and Arrow types of the columns to add; existing columns take precedence.

        Raises:
            ConfigurationError: the table has no key column, or several of that name; or it already has the reason
                column.
        """
        self.check(names)
        schema = self.columns.schema()
        if self.reason is not None:
            schema.append((self.reason, arrow().string()))
        self.say_left_out([name for name, _ in schema if name in names])
        return [(name, kind) for name, kind in schema if name not in names]

    def check(self, names: Collection[str]) -> None:
        """Check the columns of a table.

        Raises:
            ConfigurationError: as for `new_columns`.
        """
        count = list(names).count(self.key)
        if count != 1:
            raise ConfigurationError(f"the table has {count or 'no'} columns {self.key!r}, which key names")
        if self.reason in names:
            raise ConfigurationError(
                f"the table has a column {self.reason!r}: name another one for the reasons, for example reason='why'"
            )

    def say_left_out(self, names: Sequence[str]) -> None:
        """Log once which attributes are left out because the table has columns of the same names."""
        if names and self._once.first():
            shown = ", ".join(map(repr, names))
            logger.warning("%d attributes are left out, as the table has columns of these names: %s", len(names), shown)

    # --- keys -------------------------------------------------------------------------------------------------------

    def key_batch(self, column: Any) -> KeyBatch:
        """Return the distinct keys of a column, and each row's index into them.

        Args:
            column: an Arrow array or chunked array; or a list, for columns of mixed types.
        """
        values, places = _distinct_of_list(cast(Any, column)) if isinstance(column, list) else _distinct(column)
        return KeyBatch([self._asked(value) for value in (*values, None)], places)

    def _asked(self, value: object) -> ProfileKey | InvalidKeyError:
        try:
            key = key_of(value)
            return key if isinstance(key, ProfileKey) else ProfileKey(key, self.key_type)
        except InvalidKeyError as error:
            return error.with_traceback(None)

    # --- profiles ----------------------------------------------------------------------------------------------------

    def join(self, batch: KeyBatch, profiles: Mapping[Any, Profile]) -> AddedColumns:
        """Return the new columns, one value per row.

        Args:
            batch: the keys.
            profiles: the profiles by key.

        Raises:
            ProfileMissing: a profile is missing, and `on_missing` is `"raise"`.
            ProfileEnrichError: a profile could not be looked up, or does not fit, and `on_error` is `"raise"`.
        """
        pa = arrow()
        used = set(batch.places.unique().to_pylist())  # there may be no row without a key
        found: list[Mapping[str, Any] | None] = []
        reasons: list[str | None] = []
        kept: list[bool] = []
        for place, asked in enumerate(batch.asked):
            profile = profiles[asked] if isinstance(asked, ProfileKey) else None
            error = asked if isinstance(asked, InvalidKeyError) else _failure(profile)
            missing = error is None and not profile
            if place in used:
                self._judge(error, missing)
            found.append(profile.attributes if profile else None)
            reasons.append(error.code if error else str(profile.reason) if profile is not None and missing else None)
            kept.append(not missing or self.on_missing != "drop")
        arrays, unfit = self.columns.fill(found)
        if unfit and self.on_error == "raise":
            raise ConfigurationError(
                f"fields: {len(unfit)} profiles have a value that does not fit the declared type of its column; "
                "declare another type, such as 'string', or set on_error='null'"
            )
        for place in unfit:
            reasons[place] = FIELD_TYPE
        if self.reason is not None:
            arrays[self.reason] = pa.array(reasons, type=pa.string())
        rows, mask = batch.places, None
        if not all(kept):
            mask = pa.array(kept).take(rows)
            rows = rows.filter(mask)
        return AddedColumns({name: array.take(rows) for name, array in arrays.items()}, mask)

    def _judge(self, error: ProfileEnrichError | None, missing: bool) -> None:
        if error is not None and self.on_error == "raise":
            raise error
        if missing and self.on_missing == "raise":
            raise ProfileMissing("a row has a key of which the source has no profile, and on_missing='raise' is set")


def _check_type(key_type: str) -> None:
    try:
        ProfileKey("any", key_type)
    except InvalidKeyError:
        pass
    else:
        return
    raise ConfigurationError("key_type must be the short name of an identifier's type, such as 'id' or 'email'")


def _failure(profile: Profile | None) -> ProfileEnrichError | None:
    """Return the error of a failed lookup; `None` for a stale profile, which counts as a success."""
    return profile.error if profile is not None and profile.reason is Reason.UNAVAILABLE else None


def _distinct(column: Any) -> tuple[list[Any], Any]:
    """Return the distinct values of an Arrow column, and each row's index; nulls have the last index."""
    pa, pc = arrow(), importlib.import_module("pyarrow.compute")
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    try:
        encoded = column.dictionary_encode()
    except pa.ArrowNotImplementedError:  # lists, UUIDs and other types without a dictionary encoding
        return _distinct_of_list(column.to_pylist())
    values: list[Any] = []
    if isinstance(encoded, pa.ChunkedArray):
        # All chunks share the dictionary of the last one.
        if encoded.num_chunks:
            values = encoded.chunk(encoded.num_chunks - 1).dictionary.to_pylist()
        indices = pa.concat_arrays([pa.array([], pa.int32()), *(chunk.indices for chunk in encoded.chunks)])
    else:
        values, indices = encoded.dictionary.to_pylist(), encoded.indices
    return values, pc.fill_null(indices, len(values))


def _distinct_of_list(column: Sequence[object]) -> tuple[list[Any], Any]:
    """Return the same for a list of mixed types, where 1, 1.0 and True are different keys."""
    seen: dict[object, int] = {}
    values: list[Any] = []
    places: list[int] = []
    for value in column:
        place = seen.setdefault((type(value), value if value.__hash__ is not None else None), len(values))
        if place == len(values):
            values.append(value)
        places.append(place)
    return values, arrow().array(places, type=arrow().int32())
