"""The step type `sql`: statements of the author's own."""

from __future__ import annotations
