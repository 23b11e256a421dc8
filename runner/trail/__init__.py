"""The record of a run: events, the hash-chained file that stores them, and the status folded from them."""

from __future__ import annotations
