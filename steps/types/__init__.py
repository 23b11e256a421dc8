"""The step types, a file or a package for each family."""

from __future__ import annotations
