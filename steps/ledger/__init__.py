"""The ledger: the engine's own tables in the target database. All SQL that touches them is in this package."""

from __future__ import annotations
