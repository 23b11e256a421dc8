"""What people read: change cards, the live view, reports, timelines and failures."""

from __future__ import annotations
