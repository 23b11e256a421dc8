"""The two dialects of SQL that steps are written for."""

from __future__ import annotations

from enum import StrEnum


class Dialect(StrEnum):
    """The SQL that a database reads, by SQLAlchemy's name for it."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"
