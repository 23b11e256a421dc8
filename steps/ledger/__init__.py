"""The ledger: the engine's own tables in the target database, and all SQL that touches them.

What a change needs to be resumed, fenced and taken back commits here together with the change itself.
"""

from __future__ import annotations
