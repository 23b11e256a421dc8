"""The step type `fill_table`: rows from a query into a table, in batches."""

from __future__ import annotations
