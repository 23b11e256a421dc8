"""`runbook demo`: fills a private PostgreSQL with data, runs phases 1 to 4 with their gates, and shows the results."""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runner.common import terminal
from runner.common.durations import format_duration
from runner.common.errors import RunbookError, TargetUnreachable, Waiting
from runner.common.invocation import command, shown
from runner.common.markdown import safe
from runner.playbook.find import read_playbook
from runner.playbook.model import Playbook
from runner.report.live_view import Lines
from runner.run import interventions
from runner.run.execute import RunOptions, View, execute
from runner.run.resume import resume
from runner.sandbox import things_to_try
from runner.sandbox.server import Server
from runner.sandbox.stay import already, kept_up, staying
from runner.sandbox.stay import stop as stop_staying
from runner.target.runs import load_run
from runner.target.workplace import Workplace
from runner.trail.events import CheckAnswered, RunKind
from runner.trail.status import RunStatus
from steps.contract import Gate

PHASES = ("adr007-phase1", "adr007-phase2", "adr007-phase2-10k", "adr007-phase3", "adr007-phase4")
SMALL = 20_000  # with fewer sessions, a trial on 10,000 makes no sense
LARGE = 1_000_000  # with fewer sessions, the queries are so fast that only the round trip is measured
Store = Literal["raw", "enriched", "rich", "bad"]
NAME = "honeypot"
OTHER: dict[Store, str] = {  # the store to try next
    "raw": "enriched    # the same store after its enricher has run: networks, countries and types are known",
    "enriched": "bad         # where only 90 % can be covered, and the criterion says so",
    "rich": "raw         # straight after v16, before any enricher: phase 2 says what is missing",
    "bad": "rich        # where v16 itself has filled snapshots from the sessions' JSON",
}
FILLED = "demo.txt"  # marks a directory whose phases have ended, so that its server can be started again as it is
LATE_IN = "adr007-phase3"  # new sessions arrive while this phase runs


@dataclass(frozen=True)
class Up:
    """A running server. url: of its database `postgres`."""

    url: str
    version: str

    def database(self, name: str) -> str:
        return self.url.replace("/postgres?", f"/{name}?", 1)


@dataclass
class Demo:
    """One demonstration. Its trails are marked `kind: demo`; no other command answers gates by itself."""

    directory: Path
    url: str
    sessions: int
    store: Store
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
        """Answer the gate at which the run waits and resume it; returns whether it ended."""
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

    def _answer(self, gate: str, step: Gate, run: RunStatus, orders: RunOptions) -> None:
        needs = step.needs()
        roles = needs.approval.roles if needs.approval else ()
        for index in range(needs.approval.need if needs.approval else 0):
            role = roles[index % len(roles)] if roles else "anyone"
            who = f"demo-{role}"
            self.lines.say(f"  the demo answers its own gate {gate} as {who}")
            interventions.approve(
                run.run, orders, step=gate, by=who, role=role, reason="the demo answers its own gates"
            )
        for evidence in needs.evidence:
            if not evidence.optional:
                interventions.submit_evidence(
                    run.run,
                    orders,
                    step=gate,
                    evidence=evidence.name,
                    by="demo-dba",
                    reason="the demo's own word",
                    file=None,
                )

    def _orders(self, path: Path) -> RunOptions:
        view = View(heard=self.lines.heard, progress=self.lines.progress, begun=self._begun, say=self.lines.say)
        place = Workplace(target=self.url, runs=self.directory / "runs")
        return RunOptions(
            place=place, inputs=self._inputs(path), operator="demo-operator", kind=RunKind.DEMO, view=view
        )

    def _inputs(self, path: Path) -> dict[str, str]:
        """Inputs for small databases: a smaller trial, and no speed limits (those are for production's size)."""
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


def demo(*, sessions: int, store: Store, keep: Path | None, stay: bool = False) -> int:
    """Run the demonstration; returns the exit code of the phase that ended it, 0 if all succeeded."""
    began = time.monotonic()
    if stay and (other := staying()) is not None:
        raise already(other)
    directory = (keep or Path(tempfile.mkdtemp(prefix="runbook-demo-"))).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    terminal.say(f"starting a private PostgreSQL in {directory} …")
    try:
        with _server(directory, kept=keep is not None, stay=stay) as (server, stays):
            code = 0
            if stay and (directory / FILLED).exists():
                terminal.say(f"PostgreSQL {server.version} is up again, with what it had; nothing else was run")
            else:
                code = _mission(server, directory, sessions=sessions, store=store, began=began)
            if stays is not None:
                stays()
                _told_staying(server, directory)
            elif keep is not None:
                _lines(["", "start it again, with its data:", f"  {command()} demo --stay --keep {_quoted(directory)}"])
    finally:
        if keep is None:
            with contextlib.suppress(OSError):  # fails if there are runs in it
                directory.rmdir()
    return code


def _mission(server: Up, directory: Path, *, sessions: int, store: Store, began: float) -> int:
    """Fill the database and run the phases."""
    from playbooks.demo import honeypot

    terminal.say(f"PostgreSQL {server.version}; making the {store} store of {sessions:,} sessions …")
    (directory / FILLED).unlink(missing_ok=True)
    _create(server)
    honeypot.populate(server.database(NAME), sessions=sessions, store=store)
    run = Demo(directory, server.database(NAME), sessions, store, Path(honeypot.__file__).parent.parent)
    code = _phases(run)
    if code != TargetUnreachable.exit_code:
        (directory / FILLED).write_text(f"{sessions} sessions, {store}\n")
    _told(run, code, time.monotonic() - began)
    return code


def stop() -> int:
    """Stop the demo server that stays up; its runs remain."""
    found = stop_staying()
    if found is None:
        terminal.say("no demo of yours stays: there is nothing to stop")
        return 0
    terminal.say(
        f"stopped: the server in {found.directory} is down" + ("" if found.kept else ", and its data are removed")
    )
    if (Path(found.directory) / "runs").is_dir():
        terminal.say(f"its runs are in {Path(found.directory) / 'runs'}")
    if found.kept:
        _lines(["start it again, with its data:", f"  {command()} demo --stay --keep {_quoted(Path(found.directory))}"])
    return 0


def _phases(run: Demo) -> int:
    for name in PHASES:
        _rule()
        arriving = _sessions_arrive(run) if name == LATE_IN else contextlib.nullcontext()
        try:
            with arriving:
                run.phase(name)
        except RunbookError as error:
            from runner.report.failure import report_error

            return report_error(error)
    return 0


@contextlib.contextmanager
def _server(directory: Path, *, kept: bool, stay: bool) -> Iterator[tuple[Up, Callable[[], None] | None]]:
    """The server, and a function that lets it stay up after this block (None if it can't)."""
    if stay:
        with kept_up(directory, kept=kept) as (found, stays):
            yield Up(found.url, found.version), stays
        return
    server = Server(directory / "server")
    server.start()
    try:
        yield Up(server.url(), ".".join(map(str, server.version))), None
    finally:
        server.stop() if kept else server.discard()


def _create(server: Up) -> None:
    import psycopg

    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {NAME}")
        connection.execute(f"CREATE DATABASE {NAME}")


@contextlib.contextmanager
def _sessions_arrive(run: Demo) -> Iterator[None]:
    """While the block runs, insert 0.5 % new sessions, as would happen in production."""
    from playbooks.demo import honeypot

    rows = list(honeypot.late_sessions(sessions=run.sessions, store=run.store))
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


def _told(run: Demo, code: int, seconds: float) -> None:
    """Print what was proven, where the trails are, and what to try next."""
    statuses = [load_run(directory).status for directory in run.runs]
    runs, me = run.directory / "runs", command()
    where = _quoted(runs)
    ended = "the demo succeeded" if code == 0 else f"the demo ended with exit code {code}"
    lines = [
        f"{ended} in {format_duration(seconds)}",
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
        "next:",
        f"  {me} report latest --runs {where}",
        f"  {me} trail verify latest --runs {where}",
        f"  {me} plan {shown(run.playbooks / f'{LATE_IN}.yaml')}",
        f"  {me} demo --store {OTHER[run.store]}",
        f"  {me} demo --stay               # the same with a server that stays, and lines to try on it",
    ]
    _rule()
    _lines(lines)


def _told_staying(server: Up, directory: Path) -> None:
    """Print what to try on the server that stays up, and how to stop it."""
    _rule()
    _lines(
        [
            "the server stays up, until `demo --stop` or the end of this terminal; its database is",
            f"  {server.database(NAME)}",
            "",
            "try, one line after the other:",
            *(
                text
                for words, line in things_to_try.lines(server.database(NAME), directory / "runs")
                for text in (f"  {words}", f"    {line}")
            ),
            "",
            "end it:",
            f"  {command()} demo --stop",
        ]
    )


def _lines(lines: list[str]) -> None:
    """Print lines without wrapping them, since they are to be copied."""
    for line in lines:
        terminal.spoken(sys.stdout, safe(line) + "\n")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _rule() -> None:
    terminal.say()
    terminal.say("─" * min(100, terminal.columns() - 1))


def _proves(check: CheckAnswered) -> bool:
    return check.role == "criterion" and bool(check.operands) and check.answer == "pass" and not check.records_only


def _playbook(status: RunStatus) -> str:
    return status.started.playbook if status.started else "?"
