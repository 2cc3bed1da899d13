"""What a collection can be read from besides files and iterables: a query, an open stream."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import IO, Literal

from ..errors import ConfigurationError

__all__ = ["FORMATS", "Format", "SqlQuery", "Stream"]

Format = Literal["csv", "tsv", "jsonl", "parquet"]
"""How a file or a stream is written."""

FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl", "parquet")

_ENV = "env:"


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """Rows of a database, read with SQLAlchemy (extra `sql`) row by row through a cursor of the server's.

    Args:
        url: of the database as SQLAlchemy writes it, e.g. `postgresql+psycopg://reader@db/crm` or `sqlite:////data/crm.db`;
            or `env:NAME`, which takes it from that environment variable when it is needed. It may hold a password, so
            it is never shown. The driver is yours to install, e.g. `psycopg` for PostgreSQL.
        query: a SELECT statement, handed over exactly as it is. In PostgreSQL it runs in a read-only transaction.
    """

    url: str = field(repr=False)
    query: str

    def resolved(self) -> str:
        """The URL itself.

        Raises:
            ConfigurationError: the variable is not set, or there is no URL or query.
        """
        url = self.url
        if url.startswith(_ENV):
            name = url[len(_ENV) :]
            url = os.environ.get(name, "")
            if not url:
                raise ConfigurationError(f"the environment variable {name} is not set; it holds the database's URL")
        if not url:
            raise ConfigurationError("the database's URL is missing")
        if not self.query.strip():
            raise ConfigurationError("the query is empty")
        return url


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes that can be read once, e.g. standard input.

    Args:
        file: open for reading bytes. It is not closed.
        format: `csv`, `tsv`, `jsonl` or `parquet`. All but JSONL are copied to a temporary file first, because they
            are read twice; only its owner can read it, and it is removed at the end.
        name: of the stream, for messages.
    """

    file: IO[bytes] = field(repr=False)
    format: Format
    name: str = "standard input"
