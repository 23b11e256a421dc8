"""Loads playbooks from YAML: parsing, checks, and faults with their places."""

from __future__ import annotations
