"""The `that:` language of checks, and regular expressions from playbooks."""

from __future__ import annotations
