"""The commands of `runbook`: each parses its options, calls the workflow and prints the result."""

from __future__ import annotations
