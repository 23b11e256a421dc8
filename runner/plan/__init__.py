"""Decisions made before a step acts: the plan, checks and gates, requirements, windows, and the next commands."""

from __future__ import annotations
