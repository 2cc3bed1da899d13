"""The driver, psycopg 3, which the extra `postgres` installs."""

from __future__ import annotations

from ..._utils.optional_import import needs_extra

__all__ = ["ClientCursor", "Identifier", "conninfo_to_dict", "make_conninfo", "pg", "psycopg"]

with needs_extra("psycopg", "PostgreSQL", "postgres"):
    import psycopg
    from psycopg import ClientCursor
    from psycopg import errors as pg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.sql import Identifier
