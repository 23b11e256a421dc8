"""SQL as text: scanning it, classifying statements, and writing it for either database."""

from __future__ import annotations
