"""From YAML text to a playbook: read, checked, and with the place of every fault."""

from __future__ import annotations
