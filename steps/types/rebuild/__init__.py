"""The step type `rebuild_table`: a new definition for a SQLite table."""

from __future__ import annotations
