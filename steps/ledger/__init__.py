"""The ledger: the engine's own tables in the target database. All SQL that touches them is in this package.

The tables are in the target, and not beside the trail, so that the record of a change commits in the same transaction as the
change itself: after a crash either both are there or neither is, and a resume, an undo or a fence needs no guess.
"""

from __future__ import annotations
