"""What the playbook format allows, for editors and for people: JSON Schema, descriptions, examples."""

from __future__ import annotations
