"""`survey_file`: count the records and keys of a file, without lookups."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ...errors import InvalidKeyError, MissingKeyError
from ...profile import ProfileKey
from ..keys import key_of
from .formats import FileFormat, FileSpec
from .select_reader import open_reader

__all__ = ["FileSurvey", "survey_file"]

_SPACE = 2**64
_MOST = 2**20


@dataclass(frozen=True, slots=True)
class FileSurvey:
    """The counts of a file.

    Args:
        rows: records.
        unreadable: malformed records, which would be dead letters.
        without_key: records whose key is empty.
        unusable: records with an invalid key.
        distinct: distinct keys; each is one lookup in the source.
        exact: whether `distinct` was counted; above a million it is an estimate, within 1 %.
    """

    rows: int
    unreadable: int
    without_key: int
    unusable: int
    distinct: int
    exact: bool


class Distinct:
    """Count distinct strings in bounded memory: exactly at first, then estimated by their smallest hashes."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._below = _SPACE
        self._seen: set[int] = set()

    def add(self, text: str) -> None:
        """Add one string."""
        digest = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        if digest >= self._below:
            return
        self._seen.add(digest)
        if len(self._seen) > self._most:
            self._below //= 2
            self._seen = {each for each in self._seen if each < self._below}

    @property
    def exact(self) -> bool:
        """Whether the count is exact."""
        return self._below == _SPACE

    @property
    def count(self) -> int:
        """The count, or its estimate."""
        return round(len(self._seen) * (_SPACE / self._below))


def survey_file(
    source: str | Path,
    *,
    key: str,
    encoding: str | None = None,
    delimiter: str | None = None,
    source_format: FileFormat | None = None,
) -> FileSurvey:
    """Read a file to its end and count. No lookup is made.

    Args:
        source: as for `enrich_file`.
        key: the column of the keys.
        encoding: the encoding of the text. Default: by the byte order mark, otherwise UTF-8.
        delimiter: the delimiter of a CSV. Default: a tab for `.tsv`, otherwise a comma.
        source_format: the format of a file with another suffix.

    Returns:
        The counts.

    Raises:
        ConfigurationError: the column does not exist.
        InputError: the file cannot be read.
    """
    reader = open_reader(FileSpec.of(source, source_format, delimiter=delimiter), key, encoding=encoding, whole=False)
    rows = unreadable = without = unusable = 0
    distinct = Distinct()
    try:
        for item in reader:
            rows += 1
            if item.fault is not None:
                unreadable += 1
                continue
            try:
                asked = key_of(item.key)
            except MissingKeyError:
                without += 1
            except InvalidKeyError:
                unusable += 1
            else:
                distinct.add(asked.value if isinstance(asked, ProfileKey) else asked)
    finally:
        reader.close()
    return FileSurvey(rows, unreadable, without, unusable, distinct.count, distinct.exact)
