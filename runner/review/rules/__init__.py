"""The rules of lint: a function each, whose docstring is its page in docs/lint/."""

from __future__ import annotations
