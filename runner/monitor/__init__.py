"""Monitors: checks that go on being asked after a run, by whoever calls `runbook monitor once` often enough."""

from __future__ import annotations
