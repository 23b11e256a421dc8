"""SQL as text: scanned, told apart by what it does, and written for either database."""

from __future__ import annotations
