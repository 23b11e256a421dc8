"""The stages shared by exec, resume and rollback: open the engine, take the lease, act, record the end."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
from runner.playbook.find import read_written
from runner.playbook.model import Entry, Playbook
from runner.playbook.scope import Scope, given
from runner.playbook.stored import stored as stored
from runner.review.refusal import refuse_errors
from runner.run import run_row
from runner.run.control import Control, signals
from runner.run.engine import Engine
from runner.run.lease import Holder
from runner.run.may_begin import Beginning
from runner.run.session import RunSession
from runner.target import identity, resolve
from runner.target.runs import new_run
from runner.target.server_clock import server_clock
from runner.target.workplace import Connected, Workplace, connected, now, options_for
from runner.trail import run_process
from runner.trail.events import Event, Json, LedgerCreated, RollbackStarted, RunKind, RunStarted, RunState
from runner.trail.status import RunStatus
from runner.trail.status_file import StatusFile
from runner.trail.trail import Trail, TrailExtent
from steps.contract import DatabaseFault, Progress, StepResult, UndoesRun, Value
from steps.contract.values import readable_all

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
    """Callbacks that show a run's events and progress, and ask its operator."""

    heard: Callable[[Event], None] = lambda _event: None
    progress: Callable[[str, Progress], None] = lambda _step, _progress: None
    begun: Callable[[str, Path], None] = lambda _run, _directory: None
    say: Callable[[str], None] = lambda _text: None
    ask: Callable[[str], bool] | None = None  # asks a yes/no question; None: unattended


@dataclass
class RunOptions:
    """The options of a command that runs, or acts on, a run."""

    place: Workplace
    inputs: Mapping[str, str] = field(default_factory=dict)
    operator: str | None = None
    until: str = ""
    begin_at: str = ""
    status_dir: Path | None = None
    status_name: str = ""  # of the file in status_dir, before the run's time; "": it is status.json
    kind: RunKind = RunKind.REAL
    view: View = field(default_factory=View)


# ─── exec ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def execute(path: Path, orders: RunOptions) -> str:
    """Load the playbook, connect, refuse what can't run, and run it. Returns the run's name; raises RunbookError."""
    written = read_written(path, orders.inputs)
    refuse_errors(written)
    playbook = written.playbook
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
        with open_session(playbook, target, orders, directory, RunStatus(), allowed.scope) as session:
            orders.view.begun(name, directory)
            private_files.write(directory / "playbook.yaml", next(iter(playbook.source.values())))
            session.emit(started)
            for answer in allowed.answers:
                session.emit(answer)
            engine = engine_of(session, target, orders)
            run_under_lease(session, target, orders, lambda: run_or_take_back(engine))
        return name


def beginning(playbook: Playbook, target: Connected, orders: RunOptions) -> Beginning:
    """The checks before the start of a run, for exec and for the plan."""
    return Beginning(
        playbook=playbook,
        target=target,
        runs=orders.place.runs_directory(target.target),
        load=stored,
        operator=run_process.this_process(orders.operator).operator,
        approval=approval_digest(playbook, target),
        until=orders.until,
        begin_at=orders.begin_at,
    )


def masks_of(playbook: Playbook) -> Masks:
    masks = Masks()
    for name, spec in playbook.inputs.items():
        if spec.secret and playbook.values.get(name):
            masks.add(str(playbook.values[name]))
    return masks


def masks_of_run(status: RunStatus, orders: RunOptions) -> Masks:
    """The secrets of a run as far as this command knows them: the target's password, and secret inputs that are given
    again. A run stores no secrets, so what is not given again can't be masked.
    """
    return masks_given(status.started.inputs if status.started else {}, orders)


def masks_given(inputs: Mapping[str, object], orders: RunOptions) -> Masks:
    """Like masks_of_run, for a run of which only the recorded inputs are known."""
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
        with contextlib.suppress(SecretTooShort):  # can't be a secret of the run, which was refused such a one
            masks.add(str(secret))
    return masks


def _started(playbook: Playbook, target: Connected, orders: RunOptions, name: str) -> RunStarted:
    process = run_process.this_process(orders.operator)
    with target.database.look() as look:
        process.versions["server"] = identity.server_words(look)
    return RunStarted(
        run=name,
        kind=orders.kind,
        playbook=playbook.name,
        title=playbook.title,
        file=playbook.file,
        digest=playbook.digest,
        approval_digest=approval_digest(playbook, target),
        source=dict(playbook.source),
        steps={entry.id: entry.digest for entry in playbook.entries},
        inputs=readable_all(playbook.meant),
        limits=readable_all(playbook.limits),
        target=target.name,
        identity=target.identity,
        process=process,
        until=orders.until,
        from_checkpoint=orders.begin_at,
        programs=dict(playbook.programs),
        system_programs=machine_programs(playbook),
        search_path=target.database.path,
        removes=playbook.removes,
    )


def approval_digest(playbook: Playbook, target: Connected, *, exchanged: Mapping[str, str] | None = None) -> str:
    """The approval digest of this playbook with its inputs on this target."""
    return digest.for_approval(
        playbook.digest, inputs=playbook.meant, identity=target.identity, secrets=playbook.secrets, programs=exchanged
    )


def machine_programs(playbook: Playbook) -> dict[str, str]:
    """Path → SHA-256 of this machine's programs that the playbook executes."""
    uses = [one for entry in playbook.entries for one in programs.of_entry(entry)]
    uses += programs.used((), (*playbook.preconditions, *playbook.success_criteria))
    return programs.elsewhere(uses, Path(playbook.file).parent)


@contextlib.contextmanager
def open_session(
    playbook: Playbook,
    target: Connected,
    orders: RunOptions,
    directory: Path,
    status: RunStatus,
    scope: Mapping[str, Value],
    *,
    seen: TrailExtent | None = None,
) -> Iterator[RunSession]:
    """The run's trail and status file, held open. seen: the bytes of the trail that it goes on from; None for a new one."""
    trail = Trail(directory / "trail.jsonl", masks=target.masks, seen=seen, own=True)
    found = functools.partial(options_for, directory, target.name, orders.place)
    files = (directory / "status.json", *_further_status_file(orders, directory.name))
    watcher = StatusFile(files, status, lambda: {"stop": _standing(playbook, status, found())})
    control = Control(
        cancel=target.database.cancel, cut_off=target.database.cut_off, say=orders.view.say, ask=orders.view.ask
    )
    try:
        yield RunSession(
            playbook=playbook,
            database=target.database,
            trail=trail,
            status=status,
            control=control,
            watcher=_Both(watcher, orders.view),
            now=server_clock(target.database),
            listeners=[watcher.heard, orders.view.heard],
            scope=_scope(playbook, scope),
        )
    finally:
        watcher.close()
        trail.close()


def _further_status_file(orders: RunOptions, run: str) -> tuple[Path, ...]:
    """The file that --status-dir asks for: status.json, or NAME and the time at which the run began."""
    if orders.status_dir is None:
        return ()
    private_files.make_directory(orders.status_dir)
    name = f"{orders.status_name}_{'-'.join(run.rsplit('-', 3)[1:])}.json" if orders.status_name else "status.json"
    return (orders.status_dir / name,)


def engine_of(
    session: RunSession, target: Connected, orders: RunOptions, *, unproven: frozenset[str] = frozenset()
) -> Engine:
    """The engine that takes this run forward."""
    return Engine(
        session,
        undo=functools.partial(_undo, session, target),
        until=orders.until,
        begin_at=orders.begin_at or _begin_at(session.status),
        unproven=unproven,
    )


def _undo(session: RunSession, target: Connected, step: UndoesRun, entry: Entry) -> StepResult:
    """Undo another playbook's run."""
    from runner.run.undo_run import sources, undo_run

    return undo_run(session, step, entry, load=lambda text: stored(sources(text)), connect=target.another)


def _begin_at(status: RunStatus) -> str:
    """The checkpoint of --from, until the run has reached it."""
    from_checkpoint = status.started.from_checkpoint if status.started else ""
    return "" if status.step(from_checkpoint).started_at else from_checkpoint


@dataclass
class _Both:
    """Passes progress to both status.json and the view."""

    file: StatusFile
    view: View

    def progress(self, step: str, progress: Progress) -> None:
        self.file.progress(step, progress)
        self.view.progress(step, progress)

    def status_age(self) -> float | None:
        return self.file.age()


def _scope(playbook: Playbook, more: Mapping[str, Value]) -> Scope:
    return Scope({**more, **given(playbook)})


def path_of(status: RunStatus, playbook: Playbook) -> tuple[str, ...]:
    """The search_path of a resumed run: that of its start, unless the playbook has one."""
    began = status.started.search_path if status.started else ()
    return playbook.search_path or began


def given_again(status: RunStatus) -> dict[str, str]:
    inputs = status.started.inputs if status.started else {}
    return {key: typed_again(value) for key, value in inputs.items() if value is not None}


def typed_again(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _standing(playbook: Playbook, status: RunStatus, options: str) -> Json:
    """The five lines of a stop for status.json."""
    return readable_all(vars(advice.stop(playbook, status, next_commands.Here(now(), alive=True, options=options))))


def _tell_standing(session: RunSession, orders: RunOptions, target: Connected, error: RunbookError) -> None:
    """Add the five lines of a stop to an error; errors about refusals say themselves what to do."""
    if isinstance(error, RunRefused | LeaseLost | TrailBroken):
        return
    options = options_for(session.trail.path.parent, target.name, orders.place)
    first = error.then if isinstance(error, StepFailed | CriteriaNotMet) else ""
    here = next_commands.Here(now(), alive=False, options=options)
    told = advice.stop(session.playbook, session.status, here, more=error.state, first=first)
    error.stop = tuple(told.labelled())


# ─── carrying a run ─────────────────────────────────────────────────────────────────────────────────────────────────
def run_under_lease(
    session: RunSession, target: Connected, orders: RunOptions, act: Callable[[], None], *, first: Event | None = None
) -> None:
    """Prepare the ledger, take the lease, act, and record the end in trail and ledger; always returns the lease.

    first: the event with which this process takes up an existing run. It is written only after the lease is taken, so
    that a refused process leaves nothing in another one's trail.
    """
    gc.enable()  # disabled at the start, when modules are loaded (runner.cli); a run lives long
    status = session.status
    session.database.session.run = status.run
    hold = _Hold(session, first)
    try:
        # Signals first: taking over a lease may have to wait, and a stop may be asked for meanwhile. The stack ends the
        # heartbeat; the lease itself is held until the end is recorded, and returned last.
        with signals(session.control), contextlib.ExitStack() as stack:
            hold.take(stack, target, orders)
            run_row.keep_row(session)
            act()
        run_row.record_end(session, RunState.SUCCEEDED if session.proven else RunState.ENDED_UNPROVEN, 0)
    except RunbookError as error:
        hold.end_with(error)
        _tell_standing(session, orders, target, error)
        raise
    except DatabaseFault as fault:
        end = _fault_end(session, fault)
        hold.end_with(end)
        _tell_standing(session, orders, target, end)
        raise end from fault
    finally:
        hold.give_back()


@dataclass
class _Hold:
    """Takes and returns a run for this process: ledger, lease, and its first event."""

    session: RunSession
    first: Event | None
    holder: Holder | None = None

    def take(self, stack: contextlib.ExitStack, target: Connected, orders: RunOptions) -> None:
        """Create the ledger if needed, take the lease (if anything is changed), and write the first event; in this order."""
        session = self.session
        if not session.playbook.changes:
            self._begin()
            return
        created = run_row.make_ledger(session)
        process = run_process.this_process(orders.operator)
        self.holder = Holder(session.database, session.control, session.status.run, session.playbook.scope, process)
        taken = self.holder.take()
        self._begin()
        if created:
            session.emit(LedgerCreated())
        session.emit(taken)
        stack.enter_context(self.holder.beating(target.another))

    def _begin(self) -> None:
        if self.first is not None:
            self.session.emit(self.first)
            self.first = None

    def end_with(self, error: RunbookError) -> None:
        if self.first is None:
            _end_with(self.session, error)

    def give_back(self) -> None:
        if self.holder is not None:
            self.holder.give_back()


def _fault_end(session: RunSession, fault: DatabaseFault) -> RunbookError:
    """The error for a database fault outside of any step: the database was lost, or it refused a statement."""
    if session.control.interrupted:
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
        then=f"runbook resume {session.status.run}",
    )


# SQLSTATE classes: connection, resources, object in use, operator intervention, system error, corruption
_OUT_OF_ORDER = ("08", "53", "55", "57", "58", "XX")


def _end_with(session: RunSession, error: RunbookError) -> None:
    """Record the end, unless the run no longer belongs to this process."""
    if not isinstance(error, TrailBroken | LeaseLost):
        with contextlib.suppress(TrailBroken, LeaseLost):
            state = next((STATES[kind] for kind in STATES if isinstance(error, kind)), RunState.FAILED)
            code = 0 if isinstance(error, RolledBack) and error.as_asked else error.exit_code
            run_row.record_end(session, state, code, what=error.what, why=error.why)


def run_or_take_back(engine: Engine) -> None:
    """Run the engine; roll back if the failed step's policy or a guard asks for it."""
    try:
        engine.run()
    except (StepFailed, CriteriaNotMet, Aborted) as error:
        if not engine.wants_rollback:
            raise
        raise roll_back_after(engine.session, error) from error


def roll_back_after(session: RunSession, error: RunbookError) -> RunbookError:
    """Roll back after a failure; returns the error that reports both the failure and the result of the rollback."""
    from runner.run.rollback import Reverser, joined

    session.control.go_on()  # else the stop that a guard requested would stop the rollback, too
    reverser = Reverser(session, session.status.run, session.playbook)
    try:
        entries = reverser.order()
        process = session.status.process or run_process.this_process(None)
        steps = tuple(entry.id for entry in entries)
        session.emit(RollbackStarted(steps=steps, reason=error.what, process=process, kept=reverser.kept()))
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
