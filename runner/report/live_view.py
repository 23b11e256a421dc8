"""The live view of a run: a line for each event, and a progress line that is updated in place on a terminal."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TextIO

from runner.common.durations import Rate, format_duration
from runner.common.markdown import safe
from runner.common.terminal import dressed, fitted, machine_text, moves, spoken
from runner.trail import events
from runner.trail.events import Event, StepOutcome
from steps.contract import Answer, Progress

_MARKS = {
    Answer.PASS: ("✓", "green"),
    Answer.FAIL: ("✗", "red"),
    Answer.ERROR: ("!", "red"),
    Answer.UNKNOWN: ("?", "yellow"),
}
_OUTCOMES = {
    StepOutcome.DONE: ("✓", "green"),
    StepOutcome.ALREADY_APPLIED: ("=", "green"),
    StepOutcome.PASSED: ("✓", "green"),
    StepOutcome.PASSED_EARLIER: ("=", "green"),
    StepOutcome.SKIPPED: ("–", ""),
    StepOutcome.REVERTED: ("↩", "green"),
    StepOutcome.NOTHING_TO_REVERT: ("=", "green"),
    StepOutcome.PAUSED: ("⏸", "yellow"),
    StepOutcome.STOPPED: ("■", "yellow"),
    StepOutcome.CONTINUED: ("!", "yellow"),
}
ANSWER_S = 20  # timeout of a question, so that an unattended run doesn't wait
FIRST_MINUTE_S, LATER_S = 1.0, 10.0  # intervals of progress lines if the output is no terminal


@dataclass
class Lines:
    """The live view; without a terminal, progress is printed as plain lines now and then."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    verbose: bool = False
    clock: Callable[[], float] = time.monotonic
    _moving: int = 0  # lines on the terminal that the progress takes now
    _rate: Rate = field(default_factory=Rate)
    _step: str = ""
    _began: float = 0.0
    _last: float = 0.0
    _told: dict[tuple[str, str], Answer] = field(default_factory=dict)  # last answers of guards and requirements

    def begun(self, run: str, directory: Path) -> None:
        self._write(f"run    {run}")
        self._write(f"trail  {directory / 'trail.jsonl'}")

    def say(self, text: str) -> None:
        """Print a message that is not an event."""
        self._write(text, "yellow")

    def ask(self, question: str) -> bool:
        """Ask a yes/no question on the terminal; no answer within ANSWER_S means no."""
        self._write(f"  ? {question} y/N (no after {ANSWER_S} s)", "yellow")
        ready, _, _ = select.select([sys.stdin], [], [], ANSWER_S)
        return bool(ready) and sys.stdin.readline().strip().lower() in {"y", "yes"}

    def heard(self, event: Event) -> None:
        """Print one line for events that matter to an operator; the trail has all of them."""
        match event:
            case events.RunStarted():
                where = f"{event.target} ({event.process.versions.get('server', '')})"
                kind = "" if event.kind is events.RunKind.REAL else f" · {event.kind}"
                self._write(f"{event.playbook}  {event.title}")
                self._write(f"target {where} · operator {event.process.operator}{kind}")
                self._write("")
            case events.CheckAnswered():
                self._check(event)
            case events.StepStarted():
                self._step, self._rate = event.step, Rate()
                self._began = self._last = self.clock()  # delays the first progress line; short steps need none
                self._write(f"→ {event.step}: {event.describe}")
            case events.StepEnded():
                self._ended(event)
            case _:
                self._rarer(event)

    def _rarer(self, event: Event) -> None:  # noqa: C901, PLR0912, PLR0915 - one flat match over the closed union
        match event:
            case events.NotDue():
                self._write(f"  · {event.id}: not due here, decided by {event.due}")
            case events.LockWaited():
                who = f"; in the way: {'; '.join(event.blockers)}" if event.blockers else ""
                self._write(f"  ⏳ lock not free (try {event.attempt}), again in {event.next_try_s:g} s{who}", "yellow")
            case events.BlockerEnded():
                of = f" in {event.application!r}" if event.application else ""
                what = f"could not end: {event.refused}" if event.refused else f"told to end, by {event.by}"
                self._write(f"  ✂ pid {event.pid} ({event.user}{of}) {what}", "yellow")
            case events.Retried():
                self._write(f"  ⏳ {event.error} [{event.sqlstate}], again in {event.next_try_s:g} s", "yellow")
            case events.LeftStanding():
                self._write(f"  ! {event.step} is left standing by {event.by}: {event.reason}", "yellow")
            case events.RowsRequeued():
                self._write(f"  ↻ {event.step}: {event.rows:,} rows that were set aside are tried again")
            case events.Held():
                self._write(f"  ⏸ held by {event.by}: {event.reason}", "yellow")
            case events.Released():
                whose = f"{event.held_by} " if event.held_by not in {"", event.by} else ""
                self._write(f"  ▶ {whose}released by {event.by} after {event.seconds:g} s: {event.reason}")
            case events.Tuned():
                self._write(f"  ⚙ tuned by {event.by}: {events.order_words(event.settings)} ({event.reason})", "yellow")
            case events.StepVerified() if self.verbose or event.when == "in_doubt":
                self._write(f"  the database says {event.state}: {event.evidence}")
            case events.GateReached():
                self._write(f"  ⏸ {event.step} waits for: {'; '.join(event.needs)}", "yellow")
            case events.Approved():
                self._write(f"  ✓ approved by {event.name} as {event.role} (unsigned): {event.reason}")
            case events.EvidenceGiven():
                self._write(f"  ✓ evidence {event.name} by {event.by}: {event.reason}")
            case events.LeaseTaken() if event.previous_run:
                self._write(f"  took the lease over from {event.previous_run}, whose process is gone", "yellow")
            case events.Judged():
                self._write(f"  ✓ {event.id} judged a {event.answer} by {event.name} as {event.role}: {event.reason}")
            case events.WindowOverrun():
                self._write(
                    f"  ⚠ the run went on for {format_duration(event.seconds)} after its window had ended", "yellow"
                )
            case events.LedgerCreated():
                self._write("  made the ledger in the target")
            case _:
                pass

    def _check(self, event: events.CheckAnswered) -> None:
        """Print a check's answer, unless it is a guard or requirement that passes again and was shown before."""
        if event.role in {"guard", "requirement"}:
            key = (event.role, event.id)
            before, self._told[key] = self._told.get(key), event.answer
            if event.answer is before is Answer.PASS and (event.role == "requirement" or event.sampled > 1):
                return
        mark, colour = _MARKS[event.answer]
        if event.records_only or (event.role == "condition" and event.answer is Answer.FAIL):
            mark, colour = "·", "cyan"
        warned = " (warn)" if event.warned else ""
        text = f": {event.text}" if event.text else ""
        self._write(f"  {mark} {event.id}{text}{warned}", "yellow" if event.warned else colour, mark=mark)

    def _ended(self, event: events.StepEnded) -> None:
        mark, colour = _OUTCOMES.get(event.outcome, ("✗", "red"))
        words = event.outcome.words
        figures = ", ".join(
            f"{key} {_figure(value)}"
            for key, value in event.results.items()
            if isinstance(value, int | float | Decimal)
        )
        more = f" · {figures}" if figures else ""
        error = f" · {event.error}" if event.error else ""
        self._write(f"  {mark} {event.step} {words} in {event.seconds:.1f} s{more}{error}", colour, mark=mark)

    def progress(self, step: str, progress: Progress) -> None:
        """Show rows, rate and time left."""
        now = self.clock()
        self._rate.add(progress.done)
        every = 0.2 if moves(self.out) else FIRST_MINUTE_S if now - self._began < 60 else LATER_S
        if now - self._last < every:
            return
        self._last = now
        line = progress_line(step, progress, self._rate)
        if moves(self.out):
            text, clear = fitted(safe(f"  {line}")), self._cleared()
            spoken(self.out, clear + text)
            self._moving = text.count("\n") + 1
        else:
            self._write(f"  {line}")

    def _write(self, text: str, colour: str = "", *, mark: str = "") -> None:
        clear = self._cleared()
        spoken(self.out, f"{clear}{dressed(text, colour=colour, mark=mark, out=self.out)}\n")

    def _cleared(self) -> str:
        """The control sequence that erases the progress line and puts the cursor at its start."""
        above = max(self._moving - 1, 0)
        clear = "\r\x1b[2K" + "\x1b[1A\x1b[2K" * above if self._moving else ""
        self._moving = 0
        return clear


def progress_line(step: str, progress: Progress, rate: Rate) -> str:
    """Format progress: 'fill 42,000 of 100,000 rows (42 %) · 11,200/s now, 10,900/s mean · 5 s left · …'."""
    if progress.total == 1 and progress.note:
        return f"{step}: {progress.note}"  # 0 of 1 says nothing
    of = f" of {progress.total:,}" if progress.total is not None else ""
    share = f" ({100 * progress.done / progress.total:.0f} %)" if progress.total else ""
    left = rate.time_left(progress.total) if progress.total and progress.done >= progress.total / 1000 else ""
    eta = f" · {left} left" if left else ""
    speed = f" · {rate.now:,.0f}/s now, {rate.mean:,.0f}/s mean" if rate.mean > 0 else ""
    note = f" · {progress.note}" if progress.note else ""
    return f"{step} {progress.done:,}{of} {progress.unit}{share}{speed}{eta}{note}"


def _figure(value: float | Decimal) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


@dataclass
class JsonLines:
    """Prints every event as a line of JSON, for machines."""

    out: TextIO

    def heard(self, event: Event) -> None:
        spoken(self.out, machine_text(event.model_dump_json()) + "\n")
