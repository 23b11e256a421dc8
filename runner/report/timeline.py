"""The timeline of a run in the order of its trail, as the basis of a post-mortem."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runner.common.durations import format_duration
from runner.common.markdown import code, escaped, table
from runner.trail import events
from runner.trail.events import Event, Record, StepOutcome

OUTCOMES = {
    StepOutcome.DONE: "done",
    StepOutcome.ALREADY_APPLIED: "already applied",
    StepOutcome.PASSED: "passed",
    StepOutcome.PASSED_EARLIER: "was passed in an earlier run",
    StepOutcome.SKIPPED: "skipped",
    StepOutcome.FAILED: "**failed**",
    StepOutcome.CRITERIA_NOT_MET: "**applied, but a criterion did not hold**",
    StepOutcome.CONTINUED: "**failed, and the run went on**",
    StepOutcome.PAUSED: "paused",
    StepOutcome.STOPPED: "stopped at a safe point",
    StepOutcome.REVERTED: "taken back",
    StepOutcome.NOTHING_TO_REVERT: "nothing to take back",
    StepOutcome.LEFT_STANDING: "left standing",
}


def clock(at: str) -> str:
    """Format a time of the trail: UTC, to the second; "" for ""."""
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else ""


@dataclass
class _Line:
    """One line of the timeline; it may stand for many consecutive lock waits."""

    at: str
    text: str
    waits: list[events.LockWaited] = field(default_factory=list)

    def words(self) -> str:
        if not self.waits:
            return self.text
        first, last = self.waits[0], self.waits[-1]
        tries = f"try {first.attempt}" if first is last else f"tries {first.attempt} to {last.attempt}"
        return f"{code(first.step)}: lock not free ({tries}){_blockers(self.waits)}"


def _blockers(waits: Iterable[events.LockWaited]) -> str:
    names = list(dict.fromkeys(one for wait in waits for one in wait.blockers if one))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; in the way: {'; '.join(map(escaped, names[:5]))}{more}" if names else ""


def timeline(records: Iterable[Record]) -> list[str]:
    """The actions of run and people as a Markdown table; consecutive waits for one lock are one line."""
    lines: list[_Line] = []
    for record in records:
        event = record.event
        if isinstance(event, events.LockWaited):
            before = lines[-1].waits if lines else []
            if before and (before[-1].step, before[-1].label) == (event.step, event.label):
                before.append(event)
            else:
                lines.append(_Line(record.at, "", [event]))
        elif text := words(event):
            lines.append(_Line(record.at, text))
    return table(["time (UTC)", "what"], [[clock(line.at), line.words()] for line in lines])


def words(event: Event) -> str:
    """One event as a line of Markdown; "" for events that other parts of the report show (checks, verifications)."""
    return _of_run(event) or _of_step(event) or _of_people(event)


def _of_run(event: Event) -> str:
    match event:
        case events.RunStarted():
            return f"begun by {_process(event.process)}"
        case events.RunResumed():
            changed = f"; changed since: {_codes(event.changed_steps)}" if event.changed_steps else ""
            outside = ", outside of its window" if event.outside_window else ""
            return f"resumed by {_process(event.process)}{outside}{_reason(event.reason)}{changed}"
        case events.RollbackStarted():
            kept = f" ({_codes(event.kept)} kept)" if event.kept else ""
            changed = f"; way back mended in: {_codes(event.changed_steps)}" if event.changed_steps else ""
            who = _process(event.process)
            return f"rollback of {_codes(event.steps)}{kept} begun by {who}{_reason(event.reason)}{changed}"
        case events.RunEnded():
            what = f": {escaped(event.what)}" if event.what else ""
            return f"**{event.state.replace('_', ' ')}**, exit code {event.exit_code}{what}"
        case _:
            return _of_engine(event)


def _of_engine(event: Event) -> str:
    match event:
        case events.TornTail():
            return (
                f"the trail ended in half a line ({event.bytes_cut} bytes), which was cut off: its process was killed"
            )
        case events.LeaseTaken() if event.previous_run:
            return f"took the lease over from {code(event.previous_run)}, whose process was gone"
        case events.WindowOverrun():
            return f"**went on for {format_duration(event.seconds)} after its window had ended**"
        case events.LedgerCreated():
            return "made the ledger in the target"
        case events.Recovered():
            lost = f"a trail of {event.lost_length} records was lost (its head: {code(event.lost_head)})"
            return f"**recovered** from the ledger by {_process(event.process)}: {lost}"
        case _:
            return _of_monitors(event)


def _of_monitors(event: Event) -> str:
    match event:
        case events.AlertRaised():
            return f"**alert** of {code(event.monitor)} since {clock(event.since)}: {escaped(event.text)}"
        case events.AlertEnded():
            who = f", by {escaped(event.by)}" if event.by else ""
            return f"the alert of {code(event.monitor)} is over{who}: {escaped(event.text)}"
        case _:
            return ""


def _of_step(event: Event) -> str:
    match event:
        case events.StepStarted():
            again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
            return f"{code(event.step)} begun{again}: {escaped(event.describe)}"
        case events.StepEnded():
            figures = ", ".join(f"{name} {value:,}" for name, value in event.results.items() if isinstance(value, int))
            came = f" ({escaped(figures)})" if event.action == "revert" and figures else ""
            error = f"{came}: {escaped(event.error)}" if event.error else came
            state = f" [{escaped(event.sqlstate)}]" if event.sqlstate else ""
            return f"{code(event.step)} {OUTCOMES[event.outcome]} in {took(event.seconds)}{error}{state}"
        case events.StepVerified(when="in_doubt"):
            return f"{code(event.step)} was in doubt; the database says {event.state}: {escaped(event.evidence)}"
        case events.Retried():
            error = f"{escaped(event.error)} [{escaped(event.sqlstate)}]"
            return f"{code(event.step)} tried again after {error} (attempt {event.attempt})"
        case events.RowsRequeued():
            return f"{code(event.step)}: {event.rows:,} rows that were set aside are tried again"
        case events.GateReached():
            return f"{code(event.step)} waits for: {escaped('; '.join(event.needs))}"
        case _:
            return ""


def _of_people(event: Event) -> str:
    match event:
        case events.Approved():
            signed = "" if event.signed else ", unsigned"
            role = f" as {escaped(event.role)}" if event.role else ""
            return f"{code(event.step)} approved by {escaped(event.name)}{role}{signed}{_reason(event.reason)}"
        case events.EvidenceGiven():
            return f"evidence {code(event.name)} for {code(event.step)} from {escaped(event.by)}{_reason(event.reason)}"
        case events.Judged():
            who = f"{escaped(event.name)} as {escaped(event.role)}"
            return f"{who} judged {code(event.id)} a **{event.answer}**{_reason(event.reason)}"
        case events.Settled():
            done = "done" if event.done else "not done"
            return f"{escaped(event.by)} settled that {code(event.step)} is {done}{_reason(event.reason)}"
        case events.Noted():
            return f"{escaped(event.by)} noted: {escaped(event.text)}"
        case events.SqlByHand():
            came = (
                f"failed: {escaped(event.error)}"
                if event.error
                else f"{event.rows:,} row{'' if event.rows == 1 else 's'}"
            )
            return f"**SQL by hand** from {escaped(event.by)}{_reason(event.reason)}: {code(event.sql)}, {came}"
        case _:
            return _of_steering(event)


def _of_steering(event: Event) -> str:
    match event:
        case events.StopRequested():
            return f"stop asked by {escaped(event.by)}{_reason(event.reason)}"
        case events.Held():
            return f"{code(event.step)} held by {escaped(event.by)}{_reason(event.reason)}"
        case events.Released():
            whose = f"{escaped(event.held_by)} released" if event.held_by not in {"", event.by} else "goes on"
            return (
                f"{code(event.step)} {whose} after {took(event.seconds)}, by {escaped(event.by)}{_reason(event.reason)}"
            )
        case events.Tuned():
            settings = code(events.order_words(event.settings))
            return f"tuned by {escaped(event.by)}: {settings}{_reason(event.reason)}"
        case events.LeftStanding():
            return f"{escaped(event.by)} leaves {code(event.step)} standing{_reason(event.reason)}"
        case events.Closed():
            return f"closed by {escaped(event.by)}{_reason(event.reason)}; what stands: {_codes(event.stands)}"
        case _:
            return ""


def took(seconds: float) -> str:
    """Format a duration: '0.04 s', '12 s', '3 min'."""
    return f"{seconds:.2g} s" if seconds < 9.5 else format_duration(seconds)


def _process(process: events.Process) -> str:
    claimed = f"{escaped(process.operator)}, " if process.operator != process.user else ""
    return f"{claimed}{escaped(process.user)} at {escaped(process.host)}, pid {process.pid}"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(map(code, names)) or "nothing"


def _reason(reason: str) -> str:
    return f" ({escaped(reason)})" if reason else ""
