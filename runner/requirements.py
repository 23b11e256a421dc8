"""Earlier playbooks that must have succeeded on this target: read from its ledger, which is the authority."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from runner.errors import RunRefused
from runner.events import CheckAnswered
from runner.load import load_file
from runner.model import Playbook, Requirement
from runner.source import BadInput
from steps import ledger
from steps.base import Answer, Look, Value
from steps.values import decode_all


def ask(playbook: Playbook, look: Look) -> tuple[list[CheckAnswered], dict[str, Value]]:
    """Answer each requirement, and bring the figures of those runs under their short names."""
    answers: list[CheckAnswered] = []
    scope: dict[str, Value] = {}
    there = ledger.exists(look) if playbook.requires else False
    for requirement in playbook.requires:
        row = _newest(requirement, look) if there else None
        why = _why_not(requirement, row, Path(playbook.file).parent)
        answers.append(
            CheckAnswered(
                step="", role="requirement", id=requirement.playbook, probe="ledger",
                answer=Answer.FAIL if why else Answer.PASS,
                text=why or (f"run {row.run} succeeded {row.age_s / 3600:.1f} h ago" if row else ""),
            )
        )  # fmt: skip
        if row is not None and requirement.short:
            scope |= _figures(requirement.short, row)
    return answers, scope


def _newest(requirement: Requirement, look: Look) -> ledger.RunRow | None:
    """The run that decides: the newest, but one that was stopped before it changed anything undoes no earlier change."""
    rows = ledger.latest_runs(look, playbook=requirement.playbook)
    for row in rows:
        acted = bool(ledger.acted(look, run=row.run, action="apply"))
        if acted:
            return row
        if row.state == "succeeded":
            return row if row is rows[0] else rows[0]
    return rows[0] if rows else None


def _why_not(requirement: Requirement, row: ledger.RunRow | None, directory: Path) -> str:
    if row is None:
        return "it has never run on this target"
    if row.rolled_back:
        return f"its run {row.run} was rolled back"
    if row.state != "succeeded":
        return f"its newest run {row.run} is {row.state}"
    if requirement.within is not None and row.age_s > requirement.within:
        return f"its run {row.run} is {row.age_s / 86400:.1f} days old, {requirement.within / 86400:g} are allowed"
    return _changed_since(requirement, row, directory)


def _changed_since(requirement: Requirement, row: ledger.RunRow, directory: Path) -> str:
    """A run of other bytes proves nothing; where the playbook isn't at hand the ledger's word is taken."""
    path = directory / f"{requirement.playbook}.yaml"
    if not path.is_file():
        return ""
    try:
        now = load_file(path)
    except BadInput as error:
        return f"{path} can't be read: {error}"
    if now.digest == row.digest:
        return ""
    then: dict[str, str] = json.loads(row.steps)
    steps = {entry.id: entry.digest for entry in now.entries}
    differ = sorted(name for name in set(then) | set(steps) if then.get(name) != steps.get(name))
    return f"{path.name} was changed since its run {row.run}: {', '.join(differ) or 'checks, queries or limits'}"


def _figures(short: str, row: ledger.RunRow) -> dict[str, Value]:
    figures: Mapping[str, Mapping[str, object]] = json.loads(row.figures)
    return {f"{short}.{name}.{key}": value for name, one in figures.items() for key, value in decode_all(one).items()}


def refuse_unmet(answers: list[CheckAnswered]) -> None:
    """Raise RunRefused where a requirement is not met; nothing has begun by then."""
    unmet = [one for one in answers if one.answer is not Answer.PASS]
    if unmet:
        raise RunRefused(
            f"cannot begin: {', '.join(one.id for one in unmet)} must have succeeded on this target first",
            why="; ".join(f"{one.id}: {one.text}" for one in unmet),
            state="nothing was changed",
            then=f"runbook exec {unmet[0].id}.yaml",
        )
