"""Refuses a run before it starts: wrong target, unmet requirements, missing privileges, steps that can't work there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from runner.common.errors import RunRefused
from runner.plan import foresight, requirements
from runner.playbook.model import Playbook
from runner.playbook.scope import given
from runner.target import connection_count
from runner.target.database import RunDatabase
from runner.target.workplace import Connected
from runner.trail.events import CheckAnswered
from steps.contract import Gate, Look, Value
from steps.contract.dialect import Dialect
from steps.ledger import tables


@dataclass(frozen=True)
class Allowed:
    """The answers of a run's requirements, which are met, and their figures."""

    answers: list[CheckAnswered]
    scope: Mapping[str, Value]


def writing_session(database: RunDatabase, *, what: str) -> None:
    """Raise RunRefused if this session can't be given the settings that changes need. what: the action, for the message."""
    refusals = database.inherited.refusals()
    if refusals:
        raise RunRefused(
            f"cannot {what}: {refusals[0].why}",
            why="; ".join(one.why for one in refusals[1:]),
            state="nothing was changed by this command",
            then="; ".join(one.mend for one in refusals),
        )


def refuse_unmet(playbook: Playbook, target: Connected) -> Allowed:
    """Check the requirements of a run to be resumed (they may have been rolled back since); raises RunRefused."""
    with target.database.look() as look:
        answers, scope = requirements.ask(playbook, look)
        requirements.refuse_unmet(answers, playbook, doing="go on")
    return Allowed(answers, scope)


def right_database(playbook: Playbook, look: Look) -> None:
    wanted = playbook.target.sqlite if look.dialect is Dialect.SQLITE else playbook.target.postgresql
    if not (playbook.target.sqlite or playbook.target.postgresql):
        return
    if not wanted:
        raise RunRefused(
            f"cannot run {playbook.name} on {look.dialect}: its `target:` does not name it",
            state="nothing was changed by this command",
            then="give --target a database of the kind that it names",
        )
    if not version_fits(look.version, wanted):
        have = ".".join(map(str, look.version))
        raise RunRefused(
            f"cannot run {playbook.name} on {look.dialect} {have}: it needs {wanted}",
            state="nothing was changed by this command",
            then=f"give --target a server of a version that fits {wanted}",
        )


def version_fits(version: tuple[int, ...], wanted: str) -> bool:
    """Whether a version satisfies a condition such as ">=14" or ">=14 <19"."""
    for sign, number in re.findall(r"(>=|<=|<|>|==)\s*([\d.]+)", wanted):
        other = tuple(int(part) for part in number.split("."))
        mine = version[: len(other)]
        if not {">=": mine >= other, "<=": mine <= other, "<": mine < other, ">": mine > other, "==": mine == other}[
            sign
        ]:
            return False
    return True


def own_ledger(playbook: Playbook, look: Look) -> None:
    """Raise RunRefused if the playbook changes something and this role may neither use nor create the ledger."""
    if look.dialect is Dialect.SQLITE or not playbook.changes:
        return
    if tables.exists(look):
        sql = "SELECT has_schema_privilege('runbook', 'USAGE') AND has_table_privilege('runbook.run', 'INSERT') AS may"
        what = "cannot run: this role may not use the ledger in the target"
    else:
        sql = "SELECT has_database_privilege(current_database(), 'CREATE') AS may"
        what = "cannot run without a ledger in the target, and this role may not make it"
    row = look.row(f"SELECT current_user::text AS role, ({sql}) AS may")
    if not row.flag("may"):
        raise RunRefused(
            what,
            state="nothing was changed by this command",
            then=f"runbook target init --print --role {row.text('role')}, and give what it prints to the DBA",
        )


def room(playbook: Playbook, database: RunDatabase, look: Look) -> None:
    """Raise RunRefused if the server has too few free connections for this run."""
    if not playbook.changes:
        return
    why, mend = connection_count.too_few(playbook, database, look)
    if why:
        raise RunRefused(
            f"cannot run {playbook.name} here: {why}", state="nothing was changed by this command", then=mend
        )


def checkpoint(playbook: Playbook, name: str, option: str) -> None:
    """Raise RunRefused if the value of --from or --to is not a checkpoint."""
    if not name:
        return
    gates = [entry.id for entry in playbook.entries if isinstance(entry.step, Gate)]
    if name not in gates:
        raise RunRefused(
            f"cannot use {option} {name}: it is no checkpoint of {playbook.name}",
            why=f"its checkpoints: {', '.join(gates) or 'none'}",
            state="nothing was changed by this command",
            then=f"give {option} one of them" if gates else f"leave {option} away",
        )


def steps(playbook: Playbook, target: Connected, *, until: str) -> None:
    """Raise RunRefused for obstacles that no earlier step can remove; others are checked again before each step."""
    seen = foresight.Foresight(target.database.look, target.database.dialect, given(playbook))
    for entry, faults in seen.faults(playbook, until=until):
        raise RunRefused(
            f"cannot begin {playbook.name}: step {entry.id} ({entry.mark}) would not work here",
            why="; ".join(faults),
            state="nothing was changed by this command",
            then=f"runbook plan {shlex.quote(playbook.file)} shows all steps",
        )
