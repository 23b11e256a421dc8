"""The stages of exec, resume and rollback, as lists that can be read aloud."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from runner.common import private_files
from runner.common.errors import (
    Aborted,
    BadInput,
    CriteriaNotMet,
    InDoubt,
    Interrupted,
    LeaseLost,
    RollbackFailed,
    RolledBack,
    RolledBackInPart,
    RunbookError,
    RunClosed,
    RunRefused,
    StepFailed,
    TargetUnreachable,
    TrailBroken,
    Waiting,
)
from runner.common.secrets import MASK, Masks, SecretTooShort
from runner.plan import advice, next_commands, preflight
from runner.playbook import digest, programs
from runner.playbook.find import read_playbook
from runner.playbook.load import load
from runner.playbook.model import Entry, Playbook
from runner.playbook.scope import Scope
from runner.run.control import Control, signals
from runner.run.engine import Engine
from runner.run.lease import Holder
from runner.run.may_begin import Beginning
from runner.target import identity, ledger_check, resolve
from runner.target.runs import new_run
from runner.target.server_clock import server_clock
from runner.target.workplace import Connected, Workplace, connected, now, options_for
from runner.trail.events import Event, Json, LedgerCreated, RollbackStarted, RunEnded, RunKind, RunStarted, RunState
from runner.trail.status import RunStatus
from runner.trail.status_file import StatusFile
from runner.trail.trail import Trail, TrailExtent
from steps.contract import INSUFFICIENT_PRIVILEGE, DatabaseFault, Progress, StepResult, UndoesRun, Value
from steps.contract.values import in_json, readable_all
from steps.ledger import runs, tables

STATES: Mapping[type[RunbookError], RunState] = {
    Waiting: RunState.WAITING,
    CriteriaNotMet: RunState.CRITERIA_NOT_MET,
    Aborted: RunState.ABORTED,
    InDoubt: RunState.IN_DOUBT,
    RolledBack: RunState.ROLLED_BACK,
    RolledBackInPart: RunState.ROLLED_BACK_IN_PART,
    RollbackFailed: RunState.ROLLBACK_FAILED,
    RunClosed: RunState.CLOSED,
}


@dataclass
class View:
    """Who is told while a run goes: nobody, a terminal, plain lines."""

    heard: Callable[[Event], None] = lambda _event: None
    progress: Callable[[str, Progress], None] = lambda _step, _progress: None
    begun: Callable[[str, Path], None] = lambda _run, _directory: None
    say: Callable[[str], None] = lambda _text: None
    ask: Callable[[str], bool] | None = None  # None: nobody is there to answer


@dataclass
class RunOptions:
    """What a command was asked to do."""

    place: Workplace
    inputs: Mapping[str, str] = field(default_factory=dict)
    operator: str | None = None
    until: str = ""
    begin_at: str = ""
    status_dir: Path | None = None
    kind: RunKind = RunKind.REAL
    view: View = field(default_factory=View)


# ─── exec ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def execute(path: Path, orders: RunOptions) -> str:
    """Load → reach the target → refuse what can't be → run; the run's name. Raises a RunbookError for each other end."""
    playbook = read_playbook(path, orders.inputs)
    masks = masks_of(playbook)
    with connected(orders.place, schema=playbook.db_schema, path=playbook.search_path, masks=masks) as target:
        runs = orders.place.runs_directory(target.target)
        allowed = beginning(playbook, target, orders)
        for refusal in allowed.refusals():
            raise refusal
        preflight.steps(playbook, target, until=orders.until)
        name = new_run(playbook.name, now())
        directory = runs / name
        started = _started(playbook, target, orders, name).model_copy(update={"passed_in": dict(allowed.passed_in)})
        with open_engine(playbook, target, orders, directory, RunStatus(), allowed.scope) as engine:
            orders.view.begun(name, directory)
            private_files.write(directory / "playbook.yaml", next(iter(playbook.source.values())))
            engine.emit(started)
            for answer in allowed.answers:
                engine.emit(answer)
            run_under_lease(engine, target, orders, lambda: run_or_take_back(engine))
        return name


def beginning(playbook: Playbook, target: Connected, orders: RunOptions) -> Beginning:
    """What stands before this run, for exec and for the plan."""
    return Beginning(
        playbook=playbook, target=target, runs=orders.place.runs_directory(target.target), load=stored,
        operator=identity.process(orders.operator).operator, approval=approval_digest(playbook, target),
        until=orders.until, begin_at=orders.begin_at,
    )  # fmt: skip


def masks_of(playbook: Playbook) -> Masks:
    masks = Masks()
    for name, spec in playbook.inputs.items():
        if spec.secret and playbook.values.get(name):
            masks.add(str(playbook.values[name]))
    return masks


def masks_of_run(status: RunStatus, orders: RunOptions) -> Masks:
    """The secrets of a run as far as this command knows them: its secret inputs, given again by option or environment,
    and the target's password. A run keeps none, so what isn't given again can't be masked.
    """
    return masks_given(status.started.inputs if status.started else {}, orders)


def masks_given(inputs: Mapping[str, object], orders: RunOptions) -> Masks:
    """The same, of a run of which only the inputs are known, as its record has them."""
    masks = Masks()
    given = {
        name.removeprefix("RUNBOOK_INPUT_").lower(): value
        for name, value in orders.place.environ.items()
        if name.startswith("RUNBOOK_INPUT_")
    } | dict(orders.inputs)
    secrets = [given[name] for name, value in inputs.items() if value == MASK and name in given]
    with contextlib.suppress(BadInput):
        target = orders.place.resolve()
        secrets.append(resolve.connect_arguments(target, orders.place.environ).password or "")
    for secret in secrets:
        with contextlib.suppress(SecretTooShort):  # no run has begun with such a one
            masks.add(str(secret))
    return masks


def _started(playbook: Playbook, target: Connected, orders: RunOptions, name: str) -> RunStarted:
    process = identity.process(orders.operator)
    with target.database.look() as look:
        process.versions["server"] = identity.server_words(look)
    return RunStarted(
        run=name, kind=orders.kind, playbook=playbook.name, title=playbook.title, file=playbook.file, digest=playbook.digest,
        approval_digest=approval_digest(playbook, target),
        source=dict(playbook.source), steps={entry.id: entry.digest for entry in playbook.entries},
        inputs=readable_all(playbook.meant), limits=readable_all(playbook.limits), target=target.name, identity=target.identity,
        process=process, until=orders.until, from_checkpoint=orders.begin_at, programs=dict(playbook.programs),
        system_programs=machine_programs(playbook), search_path=target.database.path,
    )  # fmt: skip


def approval_digest(playbook: Playbook, target: Connected, *, exchanged: Mapping[str, str] | None = None) -> str:
    """What an approval is bound to, here and now."""
    return digest.for_approval(
        playbook.digest, inputs=playbook.meant, identity=target.identity, secrets=playbook.secrets, programs=exchanged
    )


def machine_programs(playbook: Playbook) -> dict[str, str]:
    """The programs of this machine that the playbook runs, by path."""
    uses = [one for entry in playbook.entries for one in programs.of_entry(entry)]
    uses += programs.used((), (*playbook.preconditions, *playbook.success_criteria))
    return programs.elsewhere(uses, Path(playbook.file).parent)


@contextlib.contextmanager
def open_engine(
    playbook: Playbook,
    target: Connected,
    orders: RunOptions,
    directory: Path,
    status: RunStatus,
    scope: Mapping[str, Value],
    *,
    seen: TrailExtent | None = None,
) -> Iterator[Engine]:
    """seen: the bytes of the trail that the run goes on from; None for a new one."""
    trail = Trail(directory / "trail.jsonl", masks=target.masks, seen=seen, own=True)
    places = (directory, orders.status_dir) if orders.status_dir else (directory,)
    if orders.status_dir:
        private_files.make_directory(orders.status_dir)
    found = functools.partial(options_for, directory, target.name, orders.place)
    watcher = StatusFile(places, status, lambda: {"stop": _standing(playbook, status, found())})
    control = Control(
        cancel=target.database.cancel, cut_off=target.database.cut_off, say=orders.view.say, ask=orders.view.ask
    )
    engine = Engine(
        playbook=playbook, database=target.database, trail=trail, status=status, control=control,
        watcher=_Both(watcher, orders.view), now=server_clock(target.database), listeners=[watcher.heard, orders.view.heard],
        scope=_scope(playbook, scope), until=orders.until, begin_at=orders.begin_at or _begin_at(status),
    )  # fmt: skip
    engine.undo = functools.partial(_undo, engine, target)
    try:
        yield engine
    finally:
        watcher.close()
        trail.close()


def _undo(engine: Engine, target: Connected, step: UndoesRun, entry: Entry) -> StepResult:
    """Take back another playbook's run."""
    from runner.run.undo_run import sources, undoer

    return undoer(engine, lambda text: stored(sources(text)), target.another)(step, entry)


def _begin_at(status: RunStatus) -> str:
    """Where the run began with --from, as long as it hasn't come so far."""
    from_checkpoint = status.started.from_checkpoint if status.started else ""
    return "" if status.step(from_checkpoint).started_at else from_checkpoint


@dataclass
class _Both:
    """Progress goes to status.json and to whoever looks on."""

    file: StatusFile
    view: View

    def progress(self, step: str, progress: Progress) -> None:
        self.file.progress(step, progress)
        self.view.progress(step, progress)


def _scope(playbook: Playbook, more: Mapping[str, Value]) -> Scope:
    limits = {f"limits.{name}": cast("Value", value) for name, value in playbook.limits.items()}
    inputs = {f"inputs.{name}": cast("Value", value) for name, value in playbook.values.items()}
    return Scope({**more, **limits, **inputs})


def stored(
    texts: Mapping[str, str],
    values: Mapping[str, str] | None = None,
    *,
    file: str = "",
    programs: Mapping[str, str] | None = None,
) -> Playbook:
    """The playbook as a run keeps it: the first text is the playbook, the others are what it includes."""
    main = next(iter(texts))

    def read(name: str) -> str:
        if name not in texts:
            raise BadInput(f"cannot read {name!r}: the run keeps no copy of it")
        return texts[name]

    return load(main, read, shown=file or main, values=values, kept=programs or {})


def path_of(status: RunStatus, playbook: Playbook) -> tuple[str, ...]:
    """Where a run that goes on looks names up: where it did when it began."""
    began = status.started.search_path if status.started else ()
    return playbook.search_path or began


def given_again(status: RunStatus) -> dict[str, str]:
    inputs = status.started.inputs if status.started else {}
    return {key: typed_again(value) for key, value in inputs.items() if value is not None}


def typed_again(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _standing(playbook: Playbook, status: RunStatus, options: str) -> Json:
    """For status.json, by the process that runs."""
    return readable_all(vars(advice.stop(playbook, status, next_commands.Here(now(), alive=True, options=options))))


def _tell_standing(engine: Engine, orders: RunOptions, target: Connected, error: RunbookError) -> None:
    """How the run stands now belongs to what is said of its end; what was refused says itself what to do."""
    if isinstance(error, RunRefused | LeaseLost | TrailBroken):
        return
    options = options_for(engine.trail.path.parent, target.name, orders.place)
    first = error.then if isinstance(error, StepFailed | CriteriaNotMet) else ""
    here = next_commands.Here(now(), alive=False, options=options)
    told = advice.stop(engine.playbook, engine.status, here, more=error.state, first=first)
    error.stop = tuple(told.labelled())


# ─── carrying a run ─────────────────────────────────────────────────────────────────────────────────────────────────
def run_under_lease(
    engine: Engine, target: Connected, orders: RunOptions, act: Callable[[], None], *, first: Event | None = None
) -> None:
    """Ledger → lease → act → how it ended, in the trail and in the ledger; the lease is given back whatever happens.

    first: the record that this process takes the run up; it is written by whoever has the lease, so that a process that
    is refused leaves no trace in another one's run.
    """
    gc.enable()  # a run lives long; until here what was loaded was no garbage (runner.cli)
    status = engine.status
    engine.database.session.run = status.run
    hold = _Hold(engine, first)
    try:
        with signals(engine.control), contextlib.ExitStack() as stack:
            hold.take(stack, target, orders)
            _run_row(engine)
            act()
        _ended(engine, RunState.SUCCEEDED if engine.playbook.proves else RunState.ENDED_UNPROVEN, 0)
    except RunbookError as error:
        hold.end_with(error)
        _tell_standing(engine, orders, target, error)
        raise
    except DatabaseFault as fault:
        end = _fault_end(engine, fault)
        hold.end_with(end)
        _tell_standing(engine, orders, target, end)
        raise end from fault
    finally:
        hold.give_back()


@dataclass
class _Hold:
    """A process's hold on the run: the ledger, the lease, and the first record that it writes."""

    engine: Engine
    first: Event | None
    holder: Holder | None = None

    def take(self, stack: contextlib.ExitStack, target: Connected, orders: RunOptions) -> None:
        """Whatever changes takes the lease before it writes its first record into a trail that is there already."""
        engine = self.engine
        if not engine.playbook.changes:
            self._begin()
            return
        created = _ledger(engine)
        process = identity.process(orders.operator)
        self.holder = Holder(engine.database, engine.control, engine.status.run, engine.playbook.scope, process)
        taken = self.holder.take()
        self._begin()
        if created:
            engine.emit(LedgerCreated())
        engine.emit(taken)
        stack.enter_context(self.holder.beating(target.another))

    def _begin(self) -> None:
        if self.first is not None:
            self.engine.emit(self.first)
            self.first = None

    def end_with(self, error: RunbookError) -> None:
        if self.first is None:
            _end_with(self.engine, error)

    def give_back(self) -> None:
        if self.holder is not None:
            self.holder.give_back()


def _fault_end(engine: Engine, fault: DatabaseFault) -> RunbookError:
    """Outside of any step: the database was lost, or it answered and refused."""
    if engine.control.interrupted:
        kind: type[RunbookError] = Interrupted
        what = f"cancelled: {fault}"
    elif fault.lost or not fault.sqlstate or fault.sqlstate.startswith(_OUT_OF_ORDER):
        kind, what = TargetUnreachable, f"the database can't be reached: {fault}"
    else:
        kind, what = StepFailed, f"the database refused: {fault}"
    return kind(
        what,
        why=f"SQLSTATE {fault.sqlstate}" if fault.sqlstate else "",
        state="what had committed stays; what was in flight is settled when you resume",
        then=f"runbook resume {engine.status.run}",
    )


# connections, resources, objects in use, the operator's doing, the system, corruption
_OUT_OF_ORDER = ("08", "53", "55", "57", "58", "XX")


def _end_with(engine: Engine, error: RunbookError) -> None:
    """How the run stands, unless it is no longer this process's to say."""
    if not isinstance(error, TrailBroken | LeaseLost):
        with contextlib.suppress(TrailBroken, LeaseLost):
            state = next((STATES[kind] for kind in STATES if isinstance(error, kind)), RunState.FAILED)
            code = 0 if isinstance(error, RolledBack) and error.as_asked else error.exit_code
            _ended(engine, state, code, what=error.what, why=error.why)


def _ended(engine: Engine, state: RunState, code: int, *, what: str = "", why: str = "") -> None:
    """The end, in the trail and in the ledger, while the lease is held: a take-over waits for this transaction.

    Raises LeaseLost where another process has the run by now; then it is that one's to say how it ended.
    """
    ended = RunEnded(state=state, exit_code=code, what=what, why=why)
    written = False
    if engine.recorded:
        with contextlib.suppress(DatabaseFault), engine.database.own() as work:
            engine.emit(ended)
            written = True
            runs.end_run(
                work, run=engine.status.run, state=state, figures=in_json(engine.status.figures),
                head=engine.trail.head, length=engine.trail.length,
            )  # fmt: skip
    if not written:  # a database that is away: the trail has it, and whoever took the run over stands in the trail
        engine.emit(ended)


def _ledger(engine: Engine) -> bool:
    """Make the ledger where a changing playbook finds none; whether it was made."""
    with engine.database.look() as look:
        if ledger_check.refuse_bad(look).there:
            return False
    try:
        with engine.database.own(fenced=False) as work:
            tables.create(work)
    except DatabaseFault as fault:
        if fault.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        raise RunRefused(
            "cannot run without a ledger in the target, and this role may not make it",
            why=str(fault),
            state="nothing was changed by this command",
            then="runbook target init --print, and give what it prints to the DBA",
        ) from fault
    return True


def _run_row(engine: Engine) -> None:
    """The run as the ledger has it: a new one, or what it goes by since a person accepted a changed playbook."""
    status = engine.status
    started = status.started
    if not engine.recorded or started is None:
        return
    with engine.database.look() as look:
        if not tables.exists(look):
            engine.recorded = False  # a playbook that only looks goes without
            return
        known = runs.find_run(look, started.run)
    now = (status.digest, status.approval_digest, status.source)
    if known is not None and (known.digest, known.approval_digest, json.loads(known.source)) == now:
        return
    row = runs.RunRow(
        run=started.run, playbook=started.playbook, digest=status.digest, approval_digest=status.approval_digest,
        kind=started.kind, state="running", target=started.target, identity=json.dumps(started.identity),
        inputs=json.dumps(started.inputs), operator=started.process.operator, host=started.process.host,
        steps=json.dumps({entry.id: entry.digest for entry in engine.playbook.entries}), source=json.dumps(status.source),
        figures="{}", trail_head=engine.trail.head, trail_length=engine.trail.length,
    )  # fmt: skip
    try:
        with engine.database.own() as work:
            (runs.add_run if known is None else runs.change_run)(work, row)
    except DatabaseFault:
        if engine.playbook.changes:
            raise
        engine.recorded = False  # a role that may only read: the run is real, but can't be required by another


def run_or_take_back(engine: Engine) -> None:
    """Run; where the failed step's policy is rollback, or a guard asked for it, take back what stands."""
    try:
        engine.run()
    except (StepFailed, CriteriaNotMet, Aborted) as error:
        if not engine.wants_rollback:
            raise
        raise roll_back_after(engine, error) from error


def roll_back_after(engine: Engine, error: RunbookError) -> RunbookError:
    """`on_failure: rollback`: take back what stands, and say both what failed and what became of it."""
    from runner.run.rollback import Reverser, joined

    engine.control.go_on()  # a guard's stop has been obeyed
    reverser = Reverser(engine, engine.status.run, engine.playbook)
    try:
        entries = reverser.order()
        process = engine.status.process or identity.process(None)
        steps = tuple(entry.id for entry in entries)
        engine.emit(RollbackStarted(steps=steps, reason=error.what, process=process, kept=reverser.kept()))
        reverser.revert(entries)
        return reverser.balance().end(error.what, error.why)
    except RunbookError as second:
        failed = RollbackFailed(
            f"{error.what}; and taking it back failed: {second.what}",
            why=f"{error.why}; {second.why}",
            state=second.state,
            then=second.then,
        )
        failed.__cause__ = joined(error, second)
        return failed
