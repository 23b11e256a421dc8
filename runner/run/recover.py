"""The command `recover`: recreates the folder of a run from the target's ledger."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runner.common import private_files
from runner.common.errors import RunRefused
from runner.common.secrets import Masks
from runner.plan import open_runs
from runner.playbook.model import Playbook
from runner.run.execute import STATES, RunOptions, stored
from runner.run.resume import same_target
from runner.target.lease_holder import refuse_if_held
from runner.target.runs import load_run
from runner.target.workplace import Connected, connected
from runner.trail import run_process
from runner.trail.events import (
    Event,
    LeftStanding,
    Process,
    Recovered,
    RollbackStarted,
    RunEnded,
    RunKind,
    RunStarted,
    RunState,
    StepEnded,
    StepOutcome,
    StepStarted,
)
from runner.trail.status import RunStatus
from runner.trail.trail import Trail
from steps.contract.values import decode_all, readable_all
from steps.ledger import anchors, runs, step_commits, tables
from steps.ledger.runs import RunRow
from steps.ledger.step_commits import StepRow

NOTE = "as the ledger has it"


@dataclass(frozen=True)
class Again:
    """A recovered run."""

    run: str
    directory: Path
    state: str


@dataclass(frozen=True)
class _Known:
    """Everything that the ledger has of the run. acted, back: steps with commits of their apply, and of their undo."""

    row: RunRow
    rows: list[StepRow]
    acted: set[str]
    back: set[str]
    playbook: Playbook


def recover(name: str, orders: RunOptions) -> Again:
    """Write a new trail, marked as recovered; after that the run can be resumed, rolled back or closed like any other."""
    with connected(orders.place) as target:
        directory = orders.place.runs_directory(target.target) / name
        if (directory / "trail.jsonl").exists():
            raise RunRefused(
                f"cannot recover {name}: its trail is there, in {directory}", then=f"runbook status {name}"
            )
        found = _known(name, target)
        refuse_if_held(target.database, found.playbook.scope)
        process = run_process.this_process(orders.operator)
        events = list(_events(found, process))
        same_target(_begun(events), target)
        head, length = _write(directory, events, found)
        with target.database.own(fenced=False) as work:
            anchors.anchor_anew(work, run=name, head=head, length=length)
        return Again(name, directory, load_run(directory).status.state)


def _known(name: str, target: Connected) -> _Known:
    with target.database.look() as look:
        row = runs.find_run(look, name) if tables.exists(look) else None
        if row is None:
            raise RunRefused(
                f"cannot recover {name}: the ledger in {target.name} knows no run of this name",
                why="a run's whole name is needed; exec names the runs that are open",
                state="nothing was changed by this command",
                then="give the run's whole name, and --target where it ran",
            )
        rows = step_commits.step_rows(look, name)
        acted, back = (step_commits.acted(look, run=name, action=action) for action in ("apply", "revert"))
    playbook = open_runs.of_row(row, stored)
    if playbook is None:
        raise RunRefused(
            f"cannot recover {name}: this engine can't read the playbook that the ledger keeps of it",
            state="nothing was changed by this command",
            then="use the engine with which it was run",
        )
    return _Known(row, rows, acted, back, playbook)


def _begun(events: Iterable[Event]) -> RunStatus:
    """A status with the start of the run."""
    status = RunStatus()
    for event in events:
        if isinstance(event, RunStarted):
            status.started = event
    return status


def _events(found: _Known, process: Process) -> Iterable[Event]:
    row = found.row
    yield _started(found)
    figures = {name: decode_all(one) for name, one in json.loads(row.figures).items()}
    yield Recovered.model_validate(
        {
            "process": process,
            "lost_head": row.trail_head,
            "lost_length": row.trail_length,
            "figures": figures,
        }
    )
    yield from _steps(found, "apply")
    if found.back or any(one.action == "revert" for one in found.rows):
        steps = tuple(name for name in reversed(found.playbook.ids) if name in found.back)
        yield RollbackStarted(steps=steps, reason=NOTE, process=process)
        yield from _steps(found, "revert")
    killed = row.state == RunState.RUNNING
    state = RunState.ABORTED if killed else RunState(row.state)
    what = "its process is gone, and its folder was lost" if killed else NOTE
    yield RunEnded(state=state, exit_code=_code(state), what=what)


def _started(found: _Known) -> RunStarted:
    row, playbook = found.row, found.playbook
    who = Process(operator=row.operator, user="", host=row.host, pid=0, started=0.0, versions={})
    return RunStarted(
        run=row.run,
        kind=RunKind(row.kind),
        playbook=row.playbook,
        title=playbook.title,
        file=playbook.file,
        digest=row.digest,
        approval_digest=row.approval_digest,
        source=json.loads(row.source),
        steps=json.loads(row.steps),
        inputs=json.loads(row.inputs),
        limits=readable_all(playbook.limits),
        target=row.target,
        identity=json.loads(row.identity),
        process=who,
        removes=playbook.removes,
    )


def _steps(found: _Known, action: str) -> Iterable[Event]:
    """Start and end of each step in the order of the playbook; a step with commits but without an end is left open."""
    ended = {one.step: one for one in found.rows if one.action == action}
    acted = found.acted if action == "apply" else found.back
    ids = found.playbook.ids if action == "apply" else tuple(reversed(found.playbook.ids))
    for name in ids:
        row = ended.get(name)
        if row is None and name not in acted:
            continue
        step = found.playbook.entry(name).step
        results = decode_all(json.loads(row.results)) if row is not None else {}
        if row is not None and row.state == StepOutcome.LEFT_STANDING:
            yield LeftStanding(step=name, by=str(results.get("by", "")), reason=str(results.get("reason", "")))
            continue
        yield StepStarted.model_validate(
            {"step": name, "type": step.kind, "action": action, "describe": step.describe()}
        )
        if row is not None:
            yield StepEnded.model_validate(
                {"step": name, "action": action, "outcome": row.state, "seconds": 0.0, "results": results}
            )


def _code(state: str) -> int:
    return next((kind.exit_code for kind, known in STATES.items() if known == state), 1 if state == "failed" else 0)


def _write(directory: Path, events: list[Event], found: _Known) -> tuple[str, int]:
    trail = Trail(directory / "trail.jsonl", masks=Masks())
    try:
        for event in events:
            trail.append(event)
    finally:
        trail.close()
    private_files.write(directory / "playbook.yaml", next(iter(found.playbook.source.values())))
    return trail.head, trail.length
