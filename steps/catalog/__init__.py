"""The database's catalogue, read with one meaning for PostgreSQL and SQLite."""

from __future__ import annotations
