"""What a drop means where its object isn't there: done, or a name that nobody knows."""

from __future__ import annotations

from typing import Annotated, Literal

from steps.contract import Effect, Look, State
from steps.contract.direction import ladder
from steps.ledger import step_commits, tables

Absent = Annotated[Literal["refused", "fine"], ladder("refused", "fine")]


def effect(look: Look, what: str, *, absent: Absent, evidence: str = "") -> Effect:
    """DONE where a run dropped it, or where the playbook says `absent: fine`; else UNKNOWN, since the name may be mistyped.

    what: kind and qualified name, as the drop remembers it under `gone`. evidence: what isn't there, if not this itself.
    """
    seen = evidence or f"there is no {what}"
    if tables.exists(look):
        if look.place is not None and step_commits.committed_labels(look, look.place):
            return Effect(State.DONE, f"{seen}: this step dropped it")
        if run := step_commits.dropped_by(look, what):
            return Effect(State.DONE, f"{seen}: run {run} dropped it")
    if absent == "fine":
        return Effect(State.DONE, f"{seen}: it was never there, or is gone already (absent: fine)")
    return Effect(
        State.UNKNOWN, f"{seen}, and no run on this target dropped it; correct the name, or write absent: fine"
    )
