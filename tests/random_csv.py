"""Random CSV files, and what Python's own reader says of them."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import random
from dataclasses import dataclass
from pathlib import Path

PIECES = [
    *("a", "B", "0", "7", "-1", "1.10", "12E5", "007", "true", "False", "N/A", "null", "nan", "2024-02-29", "é", "ß"),
    *("漢字", "🙂", " ", "  x ", "\t", ",", ";", "|", '"', '""', "'", "\\", "\\n", "#", "=1+1", "\n", "\r\n", "\r"),
    *("\u00a0", "\u2028", "\x0b", "\x1c", "\x85", "\ufeff", "\u0000"[:0]),
]


@dataclass(frozen=True)
class RandomCsv:
    """One file.

    Args:
        path: the file; packed, if its name says so.
        encoding: what to say of it.
        delimiter: of its fields.
        header: its column names, of which the first is the key.
        rows: the values that Python's reader gives.
    """

    path: Path
    encoding: str
    delimiter: str
    header: list[str]
    rows: list[list[str]]


def random_csv(directory: Path, seed: int) -> RandomCsv:
    """Write the file of this seed."""
    rng = random.Random(seed)
    delimiter = rng.choice(",,,;\t|")
    encoding = rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
    codec = "utf-8" if encoding.startswith("utf") else encoding

    def value(most: int) -> str:
        text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(most)))
        return text.encode(codec, "ignore").decode(codec)

    def field(text: str) -> str:
        must = any(character in text for character in f'{delimiter}"\r\n') or text.startswith("\ufeff")
        return '"' + text.replace('"', '""') + '"' if must or rng.random() < 0.2 else text

    names: dict[str, None] = {"id": None}
    while len(names) < rng.choice([1, 2, 3, 8]):
        names[value(4) or f"c{len(names)}"] = None
    header = list(names)
    count = rng.choice([1, 2, 5, 50])
    table = [[f"k{number}", *(value(5) for _ in header[1:])] for number in range(count)]
    end = rng.choice(["\n", "\n", "\r\n"])
    lines = [delimiter.join(map(field, row)) for row in [header, *table]]
    text = end.join(lines) + (end if rng.random() < 0.8 else "")
    content = text.encode(encoding)
    packed = rng.random() < 0.1
    path = directory / f"{seed}.csv{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    read = io.StringIO(text.removeprefix(codecs.BOM_UTF8.decode()), newline="")
    found = list(csv.reader(read, delimiter=delimiter, strict=True))
    said = "utf-8" if encoding in ("utf-8-sig", "utf-16") else encoding
    return RandomCsv(path, said, delimiter, found[0], found[1:])
