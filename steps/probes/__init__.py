"""All probes: one module for each probe or small family of probes. They never import each other."""

from __future__ import annotations
