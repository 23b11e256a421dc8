"""Refuses a ledger that isn't the operators' own, or isn't of this engine's form, before anything is written there."""

from __future__ import annotations

from runner.common.errors import RunRefused
from steps.contract import Look
from steps.ledger import form
from steps.ledger.form import Form
from steps.ledger.tables import VERSION

SHOWN = 5
MEND = "runbook target init brings it to today's form and keeps what is in it"


def refuse_bad(look: Look) -> Form:
    """The ledger's form; raises RunRefused where there is one that can't be worked with."""
    found = form.form(look)
    if not found.there or found.good:
        return found
    if found.planted:
        raise RunRefused(
            "cannot trust the ledger in this target: somebody else can act through it",
            why="; ".join(found.planted[:SHOWN]),
            state="nothing was changed by this command",
            then=form.remedy(look.dialect),
        )
    if found.version > VERSION:
        raise newer(found)
    raise RunRefused(
        f"cannot use the ledger in this target: it is of an earlier form (version {found.version}, today's is {VERSION})",
        why="; ".join([*found.foreign, *found.outdated][:SHOWN]),
        state="nothing was changed by this command",
        then=MEND,
    )


def newer(found: Form) -> RunRefused:
    """A later engine has made it, and knows more of it than this one."""
    return RunRefused(
        f"cannot use the ledger in this target: it is of version {found.version}, and this engine knows {VERSION}",
        state="nothing was changed by this command",
        then="use the newer engine",
    )
