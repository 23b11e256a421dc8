"""Checks `requires:`, playbooks that must have succeeded on this target, against the target's ledger."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from runner.common.durations import age, ago
from runner.common.errors import BadInput, RunRefused
from runner.common.secrets import MASK
from runner.plan import settled
from runner.playbook.load import load_file
from runner.playbook.model import Playbook, Requirement
from runner.trail.events import CheckAnswered, Json
from steps.contract import Answer, Look, Value
from steps.contract.values import decode_all, readable_all
from steps.ledger import runs, step_commits, tables

SETTLING = "monitors"  # what is asked where the run stands, and has to stand for longer


def ask(playbook: Playbook, look: Look) -> tuple[list[CheckAnswered], dict[str, Value]]:
    """Answer each requirement, and collect the figures of the required runs under their short names."""
    answers: list[CheckAnswered] = []
    scope: dict[str, Value] = {}
    there = tables.exists(look) if playbook.requires else False
    for requirement in playbook.requires:
        row = _newest(requirement, look) if there else None
        beside = _Beside(Path(playbook.file).parent / f"{requirement.playbook}.yaml", requirement.playbook)
        why = _why_not(requirement, row, beside) or _other_inputs(playbook, row, beside)
        unsettled = "" if why or row is None else settled.why_not(look, row, requirement.settled)
        why = why or unsettled
        answers.append(
            CheckAnswered(
                step="",
                role="requirement",
                id=requirement.playbook,
                probe=SETTLING if unsettled else "ledger",
                answer=Answer.FAIL if why else Answer.PASS,
                text=why or (_told(row, beside) if row else ""),
            )
        )
        if row is not None and requirement.short:
            scope |= _figures(requirement.short, row)
    return answers, scope


def _newest(requirement: Requirement, look: Look) -> runs.RunRow | None:
    """The run that decides: the newest that committed something, so that one stopped before any change doesn't count."""
    rows = runs.latest_runs(look, playbook=requirement.playbook)
    for row in rows:
        acted = bool(step_commits.acted(look, run=row.run, action="apply"))
        if acted:
            return row
        if row.state == "succeeded":
            return row if row is rows[0] else rows[0]
    return rows[0] if rows else None


class _Beside:
    """The required playbook's file in the same folder as the requiring one, if there is one."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.fault = ""
        self.playbook: Playbook | None = None
        if path.is_file():
            try:
                self.playbook = load_file(path)
            except BadInput as error:
                self.fault = f"{path} can't be read: {error}"

    @property
    def said(self) -> str:
        """A remark if nothing but the name was compared."""
        return "" if self.playbook else f" (found by its name alone: there is no {self.path.name} beside this playbook)"


def _why_not(requirement: Requirement, row: runs.RunRow | None, beside: _Beside) -> str:
    if row is None:
        return "it has never run on this target"
    if row.rolled_back:
        return f"its run {row.run} was rolled back"
    if row.removed_by:
        return f"what its run {row.run} made is taken away by run {row.removed_by}"
    if row.going_back:
        return f"a part of its run {row.run} is taken back"
    if row.state != "succeeded":
        return f"its newest run {row.run} is {row.state}"
    return _too_old(row, requirement.within) or _changed_since(row, beside)


def _too_old(row: runs.RunRow, within: float | None) -> str:
    if within is not None and row.age_s > within:
        return f"its run {row.run} is {age(row.age_s)} old, and {age(within)} are allowed"
    if within is not None and row.age_s < -tables.AHEAD_S:
        return f"its run {row.run} ended later than the server's clock says, which has gone back, so nobody knows how old it is"
    return ""


def _changed_since(row: runs.RunRow, beside: _Beside) -> str:
    """Why a run of an older version of the playbook doesn't count; "" if it is the same, or its file isn't available."""
    now = beside.playbook
    if now is None:
        return beside.fault
    if now.name != beside.name:
        return f"{beside.path.name} beside this playbook is another one: it is called {now.name}"
    same_text = not now.programs and dict(now.source) == json.loads(row.source)  # older engines computed other digests
    if now.digest == row.digest or same_text:
        return ""
    then: dict[str, str] = json.loads(row.steps)
    steps = {entry.id: entry.digest for entry in now.entries}
    differ = sorted(name for name in set(then) | set(steps) if then.get(name) != steps.get(name))
    return f"{beside.path.name} was changed since its run {row.run}: {', '.join(differ) or 'checks, queries or limits, or a program'}"


def _unusual(row: runs.RunRow, beside: _Beside) -> dict[str, Json]:
    """The inputs of the required run that differ from the defaults, except secrets."""
    usual = readable_all(beside.playbook.values) if beside.playbook is not None else {}
    given: dict[str, Json] = json.loads(row.inputs)
    return {name: value for name, value in given.items() if value != MASK and name in usual and value != usual[name]}


def _other_inputs(playbook: Playbook, row: runs.RunRow | None, beside: _Beside) -> str:
    """How the required run's non-default inputs differ from this run's inputs of the same name; "" if they don't."""
    if row is None:
        return ""
    mine = readable_all(playbook.values)
    differ = [
        f"{name}={value!r}, not {mine[name]!r}"
        for name, value in _unusual(row, beside).items()
        if name in mine and mine[name] != value
    ]
    return f"its run {row.run} had {', '.join(differ)}" if differ else ""


def _told(row: runs.RunRow, beside: _Beside) -> str:
    with_inputs = ", ".join(f"{name}={value!r}" for name, value in _unusual(row, beside).items())
    inputs = f" with {with_inputs}" if with_inputs else ""
    return f"run {row.run} succeeded {ago(row.age_s)}{inputs}{beside.said}"


def _figures(short: str, row: runs.RunRow) -> dict[str, Value]:
    figures: Mapping[str, Mapping[str, object]] = json.loads(row.figures)
    return {f"{short}.{name}.{key}": value for name, one in figures.items() for key, value in decode_all(one).items()}


def refuse_unmet(answers: list[CheckAnswered], playbook: Playbook, *, doing: str = "begin") -> None:
    """Raise RunRefused if a requirement is not met. doing: begin or go on."""
    unmet = [one for one in answers if one.answer is not Answer.PASS]
    if unmet:
        raise RunRefused(
            f"cannot {doing}: {', '.join(one.id for one in unmet)} must have succeeded on this target first",
            why="; ".join(f"{one.id}: {one.text}" for one in unmet),
            state="nothing was changed by this command",
            then=_then(unmet[0], playbook),
        )


def _then(unmet: CheckAnswered, playbook: Playbook) -> str:
    """What to do about the first unmet requirement: run that playbook, or look at how it has stood since."""
    if unmet.probe == SETTLING:
        return "runbook monitor list, and then this again"
    return f"runbook exec {shlex.quote(_named(unmet.id, playbook))}"


def _named(short: str, playbook: Playbook) -> str:
    """The argument with which exec finds a required playbook: the file beside this one if it exists, else its name."""
    beside = Path(playbook.file).with_name(f"{short}.yaml")
    return str(beside) if beside.is_file() else short
