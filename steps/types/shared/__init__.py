"""What several families of step types share."""

from __future__ import annotations
