"""What happened in a run: events, the chained file that holds them, and the status folded from them."""

from __future__ import annotations
