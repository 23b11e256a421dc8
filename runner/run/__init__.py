"""Executes runs: the engine, its guards and lease, resume, rollback, actions of people."""

from __future__ import annotations
