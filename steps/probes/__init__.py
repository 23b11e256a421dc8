"""What can be looked at: one file for each probe or small family of probes, which never import each other."""

from __future__ import annotations
