"""The step type `change_column_type`: another type for a column, with its values kept for the way back."""

from __future__ import annotations
