"""The engine's own tables in the target database: all SQL that touches them."""

from __future__ import annotations
