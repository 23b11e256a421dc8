"""The step type `backfill`: fills columns from a query, in batches that can be resumed and undone."""

from __future__ import annotations
