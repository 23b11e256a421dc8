"""Why a run can't start on a target. Used by exec, which ends with the first reason, and by the plan, which shows all."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from runner.common import private_files
from runner.common.errors import RunbookError, RunRefused, TrailBroken
from runner.plan import later_runs, open_runs, preflight, requirements, starting_point
from runner.plan.open_runs import Loader
from runner.playbook.model import Playbook
from runner.target import ledger_check, runs, workplace
from runner.target.lease_holder import refuse_if_held
from runner.target.server_clock import server_clock
from runner.target.workplace import Connected
from runner.trail.events import CheckAnswered
from steps.contract import Look, UndoesRun, Value
from steps.ledger import tables
from steps.ledger.runs import latest_standing


@dataclass
class Beginning:
    """A run that is about to start. answers, scope, passed_in: findings of `refusals` that the run itself needs.

    load: loads the stored playbooks of other runs; approval: the approval digest.
    """

    playbook: Playbook
    target: Connected
    runs: Path
    load: Loader
    operator: str
    approval: str
    until: str = ""
    begin_at: str = ""
    answers: list[CheckAnswered] = field(default_factory=list)
    scope: Mapping[str, Value] = field(default_factory=dict)
    passed_in: Mapping[str, str] = field(default_factory=dict)

    def refusals(self) -> Iterator[RunbookError]:
        """The reasons, lazily and in the order of exec; without the obstacles of its steps (preflight.steps)."""
        wrong = False
        for of_target in (self._session, self._database, self._ledger, self._room, self._checkpoints):
            for error in _raised(of_target):
                wrong = True
                yield error
        if wrong:
            return  # the checks below need the ledger of the right database
        for of_others in (self._inputs, self._required, self._passed, self._alone, self._last, self._folder):
            yield from _raised(of_others)

    # ─── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _session(self) -> None:
        if self.playbook.changes:
            preflight.writing_session(self.target.database, what=f"run {self.playbook.name} here")

    def _database(self) -> None:
        with self._look() as look:
            preflight.right_database(self.playbook, look)

    def _ledger(self) -> None:
        with self._look() as look:
            preflight.own_ledger(self.playbook, look)
        with self._look() as look:
            ledger_check.refuse_bad(look)

    def _room(self) -> None:
        with self._look() as look:
            preflight.room(self.playbook, self.target.database, look)

    def _checkpoints(self) -> None:
        preflight.checkpoint(self.playbook, self.until, "--to")
        preflight.checkpoint(self.playbook, self.begin_at, "--from")

    def _inputs(self) -> None:
        environment = self.target.target.environment
        left = [
            name
            for name, spec in self.playbook.inputs.items()
            if environment in spec.required_in and self.playbook.values.get(name) in (None, spec.default)
        ]
        if left:
            of = self.playbook.inputs[left[0]].help
            raise RunRefused(
                f"cannot run {self.playbook.name} in {environment} without the input {' and '.join(left)}",
                why=f"required_in: {environment}{f' ({of})' if of else ''}",
                state="nothing was begun",
                then=f"give {' '.join(f'--input {name}=…' for name in left)}",
            )

    def _required(self) -> None:
        with self._look() as look:
            self.answers, self.scope = requirements.ask(self.playbook, look)
        requirements.refuse_unmet(self.answers, self.playbook)

    def _passed(self) -> None:
        clock = server_clock(self.target.database)
        with self._look() as look:
            self.passed_in = starting_point.passed_earlier(
                self.playbook,
                look,
                begin_at=self.begin_at,
                approval_digest=self.approval,
                operator=self.operator,
                now=clock(),
            )

    def _alone(self) -> None:
        """Refuse to run beside another run; before this run has a folder that `latest` could refer to."""
        if self.playbook.changes:
            refuse_if_held(self.target.database, self.playbook.scope)
            open_runs.refuse_open(self.playbook, self.target, self.runs, self.load, begin_at=self.begin_at)

    def _last(self) -> None:
        """Refuse to undo a run on which later ones were built, unless earlier steps undo these."""
        gone: set[str] = set()
        with self._look() as look:
            for entry in self.playbook.entries:
                if isinstance(entry.step, UndoesRun) and entry.when is None and tables.exists(look):
                    row = latest_standing(look, entry.step.undoes())
                    later = later_runs.built_on(look, row.run, self.load) if row is not None else []
                    if row is not None:
                        again = f"runbook exec {shlex.quote(self.playbook.file)}"
                        later_runs.refuse([one for one in later if one.run not in gone], row.run, again=again)
                        gone |= set() if entry.step.only_steps() else {row.run}

    def _folder(self) -> None:
        runs.refuse_too_long(self.runs / runs.new_run(self.playbook.name, workplace.now()))
        if why := private_files.unusable(self.runs):
            raise TrailBroken(
                f"cannot write a trail in {self.runs}: {why}",
                why="nothing runs that can't be recorded first",
                state="nothing was begun",
                then="give the folder's rights, or another folder with --runs",
            )

    def _look(self) -> AbstractContextManager[Look]:
        return self.target.database.look()


def _raised(ask: Callable[[], None]) -> Iterator[RunbookError]:
    try:
        ask()
    except (RunRefused, TrailBroken) as error:
        yield error
