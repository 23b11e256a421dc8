"""Output for people: change cards, the live view, reports, timelines and error messages."""

from __future__ import annotations
