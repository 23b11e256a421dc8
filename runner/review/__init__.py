"""What a reviewer is told of a playbook's text: lint's findings."""

from __future__ import annotations
