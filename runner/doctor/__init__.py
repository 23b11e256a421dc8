"""Compares a target with what it should be like: declared shapes, a playbook's steps, a run; and finds what was left behind."""

from __future__ import annotations
