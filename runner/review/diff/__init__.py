"""`runbook diff`: what gets weaker, stricter or different from one version of playbooks to another."""

from __future__ import annotations
