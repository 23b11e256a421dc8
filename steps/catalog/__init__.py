"""What the database's catalogue says, with one meaning for PostgreSQL and SQLite."""

from __future__ import annotations
