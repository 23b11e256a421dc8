"""The playbook format for editors and people: JSON Schema, descriptions, examples."""

from __future__ import annotations
