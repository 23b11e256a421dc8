"""The whole mission on a private PostgreSQL: data, phases 1 to 4 with their gates, and what was proven."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runner import people, terminal
from runner.again import resume
from runner.embedded import Server
from runner.errors import RunbookError, RunRefused, Waiting
from runner.events import CheckAnswered, Kind
from runner.model import Playbook
from runner.playbooks import read_playbook
from runner.rate import span
from runner.status import RunStatus
from runner.view import Lines
from runner.workflow import Orders, View, execute
from runner.workplace import Place, load_run
from steps.base import Gate

PHASES = ("adr007-phase1", "adr007-phase2", "adr007-phase2-10k", "adr007-phase3", "adr007-phase4")
SMALL = 20_000  # with fewer sessions, a trial of 10,000 would be no trial
LARGE = 1_000_000  # with fewer sessions, both queries are so fast that the way there is what is measured
Shape = Literal["empty", "stored", "bad"]
LATE_IN = "adr007-phase3"  # new sessions arrive while this one runs


@dataclass
class Demo:
    """One demonstration; `kind: demo` stands in every trail, and no other command answers gates by itself."""

    directory: Path
    url: str
    sessions: int
    playbooks: Path
    lines: Lines = field(default_factory=Lines)
    runs: list[Path] = field(default_factory=list)

    def phase(self, name: str) -> None:
        """Run one playbook to its end, answering its gates as demo-dba and demo-stakeholder."""
        path = self.playbooks / f"{name}.yaml"
        playbook = read_playbook(path, self._inputs(path))
        try:
            execute(path, self._orders(path))
        except Waiting:
            while not self._answered(playbook):
                pass

    def _answered(self, playbook: Playbook) -> bool:
        """Answer the gate at which the run waits, then go on; whether it came to its end."""
        run = load_run(self.runs[-1]).status
        orders = self._orders(Path(playbook.file))
        for entry in playbook.entries:
            if isinstance(entry.step, Gate) and not run.step(entry.id).finished:
                self._answer(entry.id, entry.step, run, orders)
                break
        try:
            resume(run.run, orders)
        except Waiting:
            return False
        return True

    def _answer(self, gate: str, step: Gate, run: RunStatus, orders: Orders) -> None:
        needs = step.needs()
        roles = needs.approval.roles if needs.approval else ()
        for index in range(needs.approval.need if needs.approval else 0):
            role = roles[index % len(roles)] if roles else "anyone"
            who = f"demo-{role}"
            self.lines.say(f"  the demo answers its own gate {gate} as {who}")
            people.approve(run.run, orders, step=gate, by=who, role=role, reason="the demo answers its own gates")
        for evidence in needs.evidence:
            if not evidence.optional:
                people.bring(
                    run.run,
                    orders,
                    step=gate,
                    evidence=evidence.name,
                    by="demo-dba",
                    reason="the demo's own word",
                    file=None,
                )

    def _orders(self, path: Path) -> Orders:
        view = View(heard=self.lines.heard, progress=self.lines.progress, begun=self._begun, say=self.lines.say)
        place = Place(target=self.url, runs=self.directory / "runs")
        return Orders(place=place, inputs=self._inputs(path), operator="demo-operator", kind=Kind.DEMO, view=view)

    def _inputs(self, path: Path) -> dict[str, str]:
        """What a small database needs: a smaller trial, and no speed limits, which were measured at production's size."""
        test = self.sessions // 10
        small = (
            {}
            if self.sessions >= SMALL
            else {"sessions": test, "at_least": round(test * 0.99), "at_most": round(test * 1.01)}
        )
        waiver = (
            {}
            if self.sessions >= LARGE
            else {"speed_waiver": f"{self.sessions:,} sessions are too few: the limits are production's"}
        )
        wanted = read_playbook(path).inputs
        return {name: str(value) for name, value in {**small, **waiver}.items() if name in wanted}

    def _begun(self, run: str, directory: Path) -> None:
        if directory not in self.runs:
            self.runs.append(directory)
        self.lines.begun(run, directory)


def demo(*, sessions: int, shape: Shape, keep: Path | None) -> int:
    """Run the demonstration; the exit code of the phase that ended it, 0 when all succeeded."""
    began = time.monotonic()
    directory = keep or Path(tempfile.mkdtemp(prefix="runbook-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    terminal.say(f"starting a private PostgreSQL in {directory} …")
    with _server(directory, kept=keep is not None) as server:
        terminal.say(f"PostgreSQL {'.'.join(map(str, server.version))}; filling it with {sessions:,} sessions …")
        from playbooks.demo import honeypot

        _create(server)
        honeypot.populate(server.url("honeypot"), sessions=sessions, shape=shape)
        run = Demo(directory, server.url("honeypot"), sessions, Path(honeypot.__file__).parent.parent)
        code = _phases(run)
        _told(run, code, time.monotonic() - began, shape=shape, kept=keep is not None)
    return code


def _phases(run: Demo) -> int:
    for name in PHASES:
        _rule()
        arriving = _sessions_arrive(run) if name == LATE_IN else contextlib.nullcontext()
        try:
            with arriving:
                run.phase(name)
        except RunbookError as error:
            from runner.boundary import told

            return told(error)
    return 0


@contextlib.contextmanager
def _server(directory: Path, *, kept: bool) -> Iterator[Server]:
    data = directory / "server"
    server = Server(data)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        if not kept:
            shutil.rmtree(data, ignore_errors=True)


def _create(server: Server) -> None:
    import psycopg

    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS honeypot")
        connection.execute("CREATE DATABASE honeypot")


@contextlib.contextmanager
def _sessions_arrive(run: Demo) -> Iterator[None]:
    """Within: half a per cent of new sessions come in, as they would in production."""
    from playbooks.demo import honeypot

    rows = list(honeypot.late_sessions(sessions=run.sessions, seed=7))
    done = threading.Event()

    def arrive() -> None:
        for start in range(0, len(rows), 20):
            if done.wait(0.05):
                return
            honeypot.insert(run.url, rows[start : start + 20])

    thread = threading.Thread(target=arrive, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _told(run: Demo, code: int, seconds: float, *, shape: Shape, kept: bool) -> None:
    """What was proven, where the trails lie, what to try next."""
    statuses = [load_run(directory).status for directory in run.runs]
    runs, me = run.directory / "runs", _command()
    ended = "the demo succeeded" if code == 0 else f"the demo ended with exit code {code}"
    lines = [
        f"{ended} in {span(seconds)}",
        "",
        "proven: each was evaluated on the database, and is in the trail",
        *(
            f"  {_playbook(status):<18} {check.id}: {check.text}"
            for status in statuses
            for check in status.checks
            if _proves(check)
        ),
        "",
        f"trails: trail.jsonl, below {runs}/",
        *(f"  {_playbook(status):<18} {status.state:<17} {status.run}" for status in statuses),
        "",
        "the server has ended; what asks the database (resume, rollback, --against-target) needs it again:",
        f"  {me} demo --serve {shlex.quote(str(run.directory))}"
        if kept
        else f"  {me} demo --keep DIRECTORY    # keeps its data, and says how to start it",
        "",
        "next:",
        f"  {me} report latest --runs {runs}",
        f"  {me} trail verify latest --runs {runs}",
        f"  {me} plan adr007-phase3",
        *(
            [f"  {me} demo --shape bad    # where only 90 % can be covered, and the criterion says so"]
            if shape != "bad"
            else []
        ),
    ]
    _rule()
    for line in lines:
        terminal.say(line)


def serve(directory: Path) -> None:
    """Start the server that --keep left here again, until ^C."""
    if not (directory / "server" / "data").exists():
        raise RunRefused(
            f"cannot serve {str(directory)!r}: no demo was kept there",
            state="nothing was started",
            then=f"runbook demo --keep {shlex.quote(str(directory))}",
        )
    with Server(directory / "server") as server:
        terminal.say(f"PostgreSQL {'.'.join(map(str, server.version))} answers at {server.url('honeypot')} until ^C")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    terminal.say("the server has ended; its data stays")


def _rule() -> None:
    terminal.say()
    terminal.say("─" * min(100, terminal.columns() - 1))


def _proves(check: CheckAnswered) -> bool:
    return check.role == "criterion" and bool(check.operands) and check.answer == "pass" and not check.records_only


def _command() -> str:
    """As it can be typed here: not everybody has .venv/bin on the path."""
    found, mine = shutil.which("runbook"), Path(sys.argv[0]).absolute()
    if found is not None and Path(found).resolve() == mine.resolve():
        return "runbook"
    return str(mine.relative_to(Path.cwd())) if mine.is_relative_to(Path.cwd()) else str(mine)


def _playbook(status: RunStatus) -> str:
    return status.started.playbook if status.started else "?"
