"""The driver, psycopg 3, which the extra `postgres` installs."""

from __future__ import annotations

from ..._utils.optional_import import engine

__all__ = ["ClientCursor", "Identifier", "conninfo_to_dict", "make_conninfo", "pg", "psycopg"]

engine("psycopg", "PostgreSQL", "postgres")

import psycopg  # noqa: E402  # after the check for the extra
from psycopg import ClientCursor  # noqa: E402  # after the check for the extra
from psycopg import errors as pg  # noqa: E402  # after the check for the extra
from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: E402  # after the check for the extra
from psycopg.sql import Identifier  # noqa: E402  # after the check for the extra
