"""How a run goes: the engine, its guards and lease, resume, and the way back."""

from __future__ import annotations
