"""The `that:` language of checks, and the patterns that a playbook gives."""

from __future__ import annotations
