"""Inputs of a collection besides files and iterables: SQL queries and open streams."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import IO, Literal

from ..errors import ConfigurationError

__all__ = ["FORMATS", "Format", "SqlQuery", "Stream"]

Format = Literal["csv", "tsv", "jsonl", "parquet"]
"""The format of a file or stream."""

FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl", "parquet")

_ENV = "env:"


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """The rows of an SQL query, streamed through a server-side cursor with SQLAlchemy (extra `sql`).

    Args:
        url: the database URL in SQLAlchemy's form, e.g. `postgresql+psycopg://reader@db/crm` or
            `sqlite:////data/crm.db`; or `env:NAME`, which reads it from that environment variable when the query runs.
            It may hold a password and is never shown. Install the driver yourself, e.g. `psycopg` for PostgreSQL.
        query: a SELECT statement, sent unchanged. In PostgreSQL it runs in a read-only transaction.
    """

    url: str = field(repr=False)
    query: str

    def resolved(self) -> str:
        """Return the URL, read from the environment for `env:NAME`.

        Raises:
            ConfigurationError: the variable is not set, or the URL or query is empty.
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
    """A binary stream that can be read once, e.g. standard input.

    Args:
        file: a binary file open for reading. It is not closed.
        format: `csv`, `tsv`, `jsonl` or `parquet`. All but JSONL are read twice, so they are first copied to a
            temporary file, which only its owner can read and which is removed at the end.
        name: the name of the stream, for messages.
    """

    file: IO[bytes] = field(repr=False)
    format: Format
    name: str = "standard input"
