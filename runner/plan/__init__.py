"""What is decided before a step acts: the plan, its gates and requirements, and what comes next."""

from __future__ import annotations
