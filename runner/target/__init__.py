"""The target database: address and identity, sessions, connections and transactions."""

from __future__ import annotations
