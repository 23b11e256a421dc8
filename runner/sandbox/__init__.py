"""A private PostgreSQL and the demo that runs on it."""

from __future__ import annotations
