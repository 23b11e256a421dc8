"""Tests of the probes, one file for each of theirs."""

from __future__ import annotations
