"""Where a run goes: the target's address and identity, its sessions, connections and transactions."""

from __future__ import annotations
