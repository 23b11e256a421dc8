"""Refuses a ledger that others could tamper with, or whose version doesn't fit, before anything is written to it."""

from __future__ import annotations

from runner.common.errors import RunRefused
from steps.contract import Look
from steps.ledger import form
from steps.ledger.form import Form
from steps.ledger.tables import VERSION

SHOWN = 5
MEND = "runbook target init brings it to today's form and keeps what is in it"


def refuse_bad(look: Look) -> Form:
    """Return the ledger's form (it may be absent); raise RunRefused if it can't be used."""
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
    """The refusal of a ledger that a newer engine has created or migrated."""
    return RunRefused(
        f"cannot use the ledger in this target: it is of version {found.version}, and this engine knows {VERSION}",
        state="nothing was changed by this command",
        then="use the newer engine",
    )
