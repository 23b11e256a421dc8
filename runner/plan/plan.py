"""Builds the Plan of a playbook (and a target): pure data, complete; shown by plan, live view and report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from runner.common.durations import age, format_duration
from runner.playbook.check_text import question
from runner.playbook.model import Check, Entry, Guard, LockPolicy, Monitor, Playbook, RetryPolicy, Timeouts
from runner.playbook.monitor_builder import share
from steps.contract import Conditional, Effect, Gate, HalfDone, Oneway, Reversible, Statement, UsesFigures, able

if TYPE_CHECKING:
    from runner.plan.foresight import Foreseen, Foresight


@dataclass(frozen=True)
class Card:
    """The change card of one step, for reviewers: what it does, SQL, locks, rows, undo, checks."""

    id: str
    type: str
    what: str
    why: str
    statements: tuple[Statement, ...] = ()
    rows: int | None = None
    taking_back: str = ""
    gate: tuple[str, ...] = ()
    on_failure: str = "stop"
    if_stopped_here: str = ""
    state: Effect | None = None
    faults: tuple[str, ...] = ()
    later: tuple[str, ...] = ()  # what can't be known before earlier steps have run
    patience: str = ""  # lock, timeouts and retries, if they differ from the usual ones of the playbook
    when: str = ""  # its condition
    when_now: str = ""  # what that says on the target

    @property
    def lock(self) -> str:
        """The locks of its statements, each with the kind of duration it is held."""
        locks = dict.fromkeys(
            f"{one.lock} ({one.length})" if one.length else one.lock for one in self.statements if one.lock
        )
        return ", ".join(locks)


@dataclass(frozen=True)
class Plan:
    """Everything that a run of this playbook would do, in order."""

    name: str
    title: str
    digest: str
    target: str
    cards: tuple[Card, ...]
    preconditions: tuple[str, ...]
    success_criteria: tuple[str, ...]
    requires: tuple[str, ...]
    rollback: str
    monitors: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    window: str = ""
    patience: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def faults(self) -> list[str]:
        return self.faults_before("")

    def faults_before(self, until: str) -> list[str]:
        """Faults that would stop a run to the checkpoint `until` ("": to the end)."""
        ids = [card.id for card in self.cards]
        cards = self.cards[: ids.index(until)] if until in ids else self.cards
        return [f"{card.id}: {fault}" for card in cards for fault in card.faults]


def plan(playbook: Playbook, *, foresight: Foresight | None = None, target: str = "") -> Plan:
    """Build the plan; with a foresight the cards have statements, rows and the state on the target."""
    each = [_patience(entry) for entry in playbook.entries]
    common = max(each, key=each.count, default=patience(LockPolicy(), Timeouts(), RetryPolicy()))
    return Plan(
        name=playbook.name,
        title=playbook.title,
        digest=playbook.digest,
        target=target,
        cards=tuple(_card(entry, foresight.of(entry) if foresight else None, common) for entry in playbook.entries),
        preconditions=tuple(words(check) for check in playbook.preconditions),
        success_criteria=tuple(words(check) for check in playbook.success_criteria),
        requires=tuple(
            one.playbook
            + (f" within {age(one.within)}" if one.within else "")
            + (f" settled for {age(one.settled)}" if one.settled else "")
            for one in playbook.requires
        ),
        rollback=_rollback_words(playbook),
        monitors=tuple(map(monitor_words, playbook.monitors)),
        limits=tuple(f"{name} = {value}" for name, value in sorted(playbook.limits.items())),
        window=_window(playbook),
        patience=common,
        notes=_notes(playbook, datetime.now(UTC).date()),
    )


def _window(playbook: Playbook) -> str:
    length = [f"{format_duration(playbook.window)} from the first change"] if playbook.window is not None else []
    when = playbook.open
    days = [f"open {', '.join(when.days)} from {when.since} to {when.to} ({when.zone})"] if when is not None else []
    return "; ".join(length + days)


def _patience(entry: Entry) -> str:
    return patience(entry.lock, entry.timeout, entry.retry)


def patience(lock: LockPolicy, timeout: Timeouts, retry: RetryPolicy) -> str:
    """Lock timeouts, statement timeouts and retries, in words."""
    return (
        f"queues {format_duration(lock.wait)} for a lock, again for {format_duration(lock.retry_for)}{_kept(lock)}; a statement may take "
        f"{format_duration(timeout.statement)}, a long one {format_duration(timeout.long)}, a look {format_duration(timeout.look)}; "
        f"{retry.attempts} tries, at most {format_duration(retry.longest_wait)} apart"
    )


def _kept(lock: LockPolicy) -> str:
    keeps = f", keeps it for at most {format_duration(lock.hold)}" if lock.hold else ""
    ends = f", ends sessions of {', '.join(lock.blockers.end)} in its way" if lock.blockers.end else ""
    return keeps + ends


def words(check: Check) -> str:
    """A check in one line."""
    if check.due:
        return f"{check.id}: not due here, decided by {check.due}"
    asked = question(check) if check.probe is not None else f"the step's result, {question(check)}"
    record = f" (recorded only: {check.record_only})" if check.record_only else ""
    free = "" if check.probe is None or check.probe.enforced else " (not enforced read-only by the database)"
    return f"{check.id}: {asked}{record}{free}"


def guard_words(guard: Guard) -> str:
    """A guard in one line: what is sampled, and what is done if it does not hold."""
    often = f" {guard.last.broken} times of {guard.last.samples}" if guard.last.samples > 1 else ""
    lasting = f" for {format_duration(guard.hold_for)}" if guard.hold_for else ""
    until = f", until {guard.resume.text}" if guard.resume is not None else ""
    rest = f"hibernates for {format_duration(guard.hibernate)}" if not guard.stops else guard.action
    critical = f"; {guard.critical.text}: {rest}" if guard.critical is not None else ""
    acts = guard.action.replace("_", " ")
    return f"while it runs, {words(guard.check)}; broken{often}{lasting}: {acts}{until}{critical}"


def monitor_words(monitor: Monitor) -> str:
    """A monitor in one line: what is asked when, and what makes it alert."""
    often = f" {monitor.last.broken} times of {monitor.last.samples}" if monitor.last.samples > 1 else ""
    lasting = f" for {age(monitor.alert_for)}" if monitor.alert_for else ""
    alert = f"; alerts when {monitor.alert.text}" if monitor.alert is not None else "; alerts when it doesn't pass"
    beside = f", compared with {monitor.against} of the run" if monitor.against else ""
    late = monitor.missed.skip_after
    missed = f"; skipped when more than {age(late)} late" if late is not None else ""
    alert = "" if monitor.check.record_only else f"{alert}{often}{lasting}"
    return f"{monitor.every.words()}, {words(monitor.check)}{beside}{alert}{missed}; {share(monitor)}"


def _card(entry: Entry, seen: Foreseen | None, common: str) -> Card:
    from runner.plan.foresight import Foreseen

    step, own = entry.step, _patience(entry)
    found = seen or Foreseen()
    return Card(
        id=entry.id,
        type=step.kind,
        what=step.describe(),
        why=entry.why,
        statements=found.statements,
        rows=found.rows,
        taking_back=taking_back(entry, found.condition),
        gate=(*map(words, (*entry.preconditions, *entry.success_criteria)), *map(guard_words, entry.guards)),
        on_failure=entry.on_failure.policy + (f": {entry.on_failure.reason}" if entry.on_failure.reason else ""),
        if_stopped_here=entry.if_stopped_here,
        state=found.state,
        faults=tuple(found.faults),
        later=tuple(found.later),
        patience="" if own == common else own,
        when=question(entry.when) + (f" ({entry.when.why})" if entry.when.why else "") if entry.when else "",
        when_now=found.expected.words if found.expected is not None else "",
    )


def taking_back(entry: Entry, condition: str | None = None) -> str:
    """Whether and on which condition a step can be undone, in words; "" if there is nothing to undo.

    condition: as the target reports it; None without a target.
    """
    step = entry.step
    if able(step, Gate) or not step.changes:
        return ""
    if not step.lasting:
        return "nothing to take back (maintenance)"
    reason = one_way(entry)
    if reason:
        return f"one way: {reason}"
    if condition is None:
        condition = step.back_if(None) if able(step, Conditional) else ""
    return f"yes, {condition}" if condition else "yes"


def one_way(entry: Entry) -> str:
    """Why a step can't be undone; "" if it can."""
    step = entry.step
    if not step.changes or not step.lasting:
        return ""
    if not able(step, Reversible):
        return f"{step.kind} has no way back"
    return step.one_way() if able(step, Oneway) else ""


def _rollback_words(playbook: Playbook) -> str:
    if playbook.rollback == "none":
        return f"none: {playbook.rollback_reason}"
    order = playbook.rollback_steps or tuple(reversed(playbook.ids))
    steps = [name for name in order if taking_back(playbook.entry(name)).startswith("yes")]
    kept = [name for name in playbook.ids if name not in order and taking_back(playbook.entry(name)).startswith("yes")]
    rest = f"; {', '.join(kept)} stays" if kept else ""
    return f"reverse: {', then '.join(steps)}{rest}" if steps else f"nothing to take back{rest}"


def _hanging(playbook: Playbook) -> Iterator[tuple[str, str, str]]:
    """Checks and steps that ask for a figure of another step that may be skipped: (who asks, figure, step)."""
    skippable = {entry.id for entry in playbook.entries if entry.when is not None}
    asks = [(check.id, "", _names(check)) for check in (*playbook.preconditions, *playbook.success_criteria)]
    for entry in playbook.entries:
        checks = [*entry.preconditions, *entry.success_criteria, *([entry.when] if entry.when else [])]
        asks += [(check.id, entry.id, _names(check)) for check in checks]
        asks += [(entry.id, entry.id, entry.step.figures())] if able(entry.step, UsesFigures) else []
    for who, within, names in asks:
        for name in names:
            step = name.partition(".")[0]
            if step in skippable and step != within:
                yield who, name, step


def _names(check: Check) -> tuple[str, ...]:
    return check.that.names if check.that is not None else ()


def warnings(playbook: Playbook) -> list[str]:
    """Warnings about the rollback, for the author."""
    listed = playbook.rollback_steps
    kept = [
        entry.id
        for entry in playbook.entries
        if listed and entry.id not in listed and taking_back(entry).startswith("yes")
    ]
    found = (
        [f"rollback leaves {', '.join(kept)} standing: a run that is taken back ends as rolled back in part (9)"]
        if kept
        else []
    )
    return found + [
        f"{entry.id} ({entry.mark}) can't be taken back by itself where it ends half done: {why}"
        for entry in playbook.entries
        if (why := half_way_back(entry))
    ]


def half_way_back(entry: Entry) -> str:
    """Why the step can't be undone automatically if it ends half done; "" if it can."""
    return entry.step.half_way_back() if able(entry.step, HalfDone) else ""


def _notes(playbook: Playbook, today: date) -> tuple[str, ...]:
    notes = [f"expected to take {playbook.takes}"] if playbook.takes else []
    if playbook.removes:
        notes.append(
            f"takes away what earlier runs of {', '.join(playbook.removes)} made: from its first change on they count as gone"
        )
    if playbook.review_after and playbook.review_after < f"{today:%Y-%m-%d}":
        notes.append(f"its review was due after {playbook.review_after}; last reviewed {playbook.reviewed or 'never'}")
    for entry in playbook.entries:
        reason = one_way(entry)
        if reason:
            notes.append(f"{entry.id} is one way: {reason}")
    notes += warnings(playbook)
    notes += [
        f"{check} asks for {figure}: where {step} is skipped, it can't be answered"
        for check, figure, step in _hanging(playbook)
    ]
    whenever = [entry.id for entry in playbook.entries if entry.when is not None]
    if playbook.proves and not playbook.proves_without(whenever):
        notes.append(f"nothing proves a run that skips {', '.join(whenever)}: it then ends as unproven")
    if not playbook.proves:
        notes.append(f"no success criterion: it ends as unproven ({playbook.unproven})")
    return tuple(notes)
