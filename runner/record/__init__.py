"""Decides whether a run's record can be trusted: compares the trail with the ledger."""

from __future__ import annotations
