"""What every room uses: errors, secrets, durations, text for a terminal."""

from __future__ import annotations
