"""Used by every package: errors and exit codes, secrets, durations, terminal output."""

from __future__ import annotations
