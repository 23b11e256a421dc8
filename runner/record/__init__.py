"""Whether a run's record may be acted on: the trail held against the ledger."""

from __future__ import annotations
