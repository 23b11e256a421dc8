"""Samples the guards of a step while it runs, from a separate thread, and requests their actions (hold, brake, stop)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from math import ceil, log2
from typing import NamedTuple

from runner.common.durations import Rate, format_duration
from runner.common.errors import TrailBroken
from runner.plan import ask
from runner.playbook.model import Entry, Guard, GuardAction
from runner.playbook.scope import Scope
from runner.run.control import Control, Hold
from runner.run.guard_state import UNDECIDED, Level, Levels, Reading
from runner.trail.events import CheckAnswered, Event, Tuned
from steps.contract import Answer, Progress, StepError, Value, running_figures
from steps.contract.values import exact

Emit = Callable[[Event], None]
BUDGET = 99.0  # pause after a sample, in multiples of its duration, so that probes take at most 1 % of the time
CONFIRM_S = 3.0  # interval between the first critical sample and its confirmation
PATIENCE_S = 5.0  # how long to wait for a safe point before statements in flight are cancelled
AGAIN_S = 1.0  # interval between cancellations: the first may have fallen into the gap between two statements
NEVER_S = 1e9  # interval of a check that another playbook decides
DIGITS = 200_000  # more than a PostgreSQL number can have
PROMPT_S = 0.5  # how long the end of a step waits for a sample in progress
BATCH_S, SMALLEST_S = 0.25, 0.02
TIMES = frozenset({"elapsed_s", "window_left_s", "status_age_s"})  # figures known before the step has reported anything

VAIN = "; waiting changes nothing here: runbook tune RUN go --reason '…', or tune RUN stop --reason '…' and then runbook rollback RUN"


class Latest(NamedTuple):
    """The step's own figures at its last safe point."""

    values: Mapping[str, Value]
    batch_s: float | None


@dataclass
class _Watch:
    """One guard with its state and samples."""

    guard: Guard
    due: float
    levels: Levels = field(init=False)
    sampled: int = 0
    broke: int = 0
    last: CheckAnswered | None = None
    recorded: CheckAnswered | None = None
    usual: float | None = None  # batch duration before this guard made batches smaller
    _names: dict[str, Value] = field(default_factory=dict)
    _first: dict[str, Value] = field(default_factory=dict)
    _before: tuple[float, Mapping[str, Value]] | None = None

    def __post_init__(self) -> None:
        self.levels = Levels(self.guard)

    @property
    def by(self) -> str:
        return f"guard {self.guard.check.id}"

    @property
    def names(self) -> set[str]:
        """The figures that its expressions use, also as `grown.x` or `per_min.x`."""
        names = {name for one in self.guard.expressions for name in one.names}
        return {name.removeprefix("grown.").removeprefix("per_min.") for name in names}

    @property
    def too_early(self) -> bool:
        """Whether the only sample so far is undecided because a rate needs two."""
        that = self.guard.check.that
        rate = that is not None and any(name.startswith("per_min.") for name in that.names)
        return rate and self.sampled == 1 and self.last is not None and self.last.answer is Answer.UNKNOWN

    def sample(
        self, look: ask.Looker, scope: Mapping[str, Value], own: Mapping[str, Value], *, step: str
    ) -> CheckAnswered | None:
        """Take a sample; None if another playbook decides the check."""
        self._names = {}
        (answer,) = ask.ask(
            [self.guard.check], step=step, role="guard", look=look, scope=scope, own=own, more=self._derived
        )
        if not isinstance(answer, CheckAnswered):
            return None
        self._names = {**self._names, **scope}
        self.sampled += 1
        self.broke += answer.answer is not Answer.PASS
        self.last = answer.model_copy(update={"sampled": self.sampled, "broke": self.broke})
        return self.last

    def _derived(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """Growth of each figure since the first sample, and its rate per minute since the previous one."""
        now = time.monotonic()
        more: dict[str, Value] = {}
        for name, value in values.items():
            if _number(value):
                self._first.setdefault(name, value)
            more[f"grown.{name}"] = _difference(value, self._first.get(name))
            more[f"per_min.{name}"] = None
            if self._before is not None and now > self._before[0]:
                change = _difference(value, self._before[1].get(name))
                more[f"per_min.{name}"] = None if change is None else float(change) * 60 / (now - self._before[0])
        self._before = (now, dict(values))
        self._names = {**values, **more}
        return more

    def reading(self, answer: CheckAnswered) -> Reading:
        """The sample as input of the state machine. `resume:` never ends a hold unless `that` holds, too."""
        guard, passed = self.guard, answer.answer is Answer.PASS
        resume = passed and (guard.resume is None or ask.holds(guard.resume, self._names) is True)
        critical = ask.holds(guard.critical, self._names) is True
        return Reading(answer.answer, answer.text, resume, critical)


@dataclass
class GuardMonitor:
    """Samples the guards of one step.

    Its thread only requests actions through Control; the step obeys at its safe points. `_lock` makes sampling and ending
    exclusive: once the step has ended, no guard may record or request anything any more.
    """

    entry: Entry
    look: ask.Looker
    scope: Mapping[str, Value]
    emit: Emit
    control: Control
    window_left: Callable[[], float | None] = lambda: None
    status_age: Callable[[], float | None] = lambda: None
    _watches: list[_Watch] = field(default_factory=list)
    _latest: Latest | None = None
    _pulses: int = 0
    _began: float = 0.0
    _rate: Rate = field(default_factory=Rate)
    _done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Sample the guards while the block runs; raises StepError, before it runs, if one can't be answered here."""
        self._began = time.monotonic()
        self._watches = [_Watch(guard, self._began) for guard in self.entry.guards]
        thread = threading.Thread(target=self._keep, daemon=True, name="guards")
        try:
            self._first()
            thread.start()
            yield
        finally:
            self._end(thread)

    def heard(self, progress: Progress) -> None:
        """Take the step's figures at a safe point, for guards without a probe. The first is ignored: no work is done yet."""
        self._rate.add(progress.done)
        self._pulses += 1
        if self._pulses == 1:
            return
        figures = progress.figures or {}
        left = self._rate.seconds_left(progress.total)
        values = {
            **figures,
            "done": progress.done,
            "total": progress.total,
            "eta_s": None if left is None else round(left, 1),
        }
        milliseconds = figures.get(running_figures(self.entry.step).batch_ms)
        seconds = float(milliseconds) / 1000 if isinstance(milliseconds, int | float) and milliseconds > 0 else None
        self._latest = Latest(values, seconds)

    # ─── sampling ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _first(self) -> None:
        """Sample each probe once before the step starts: one that can't be answered must fail now, not hold the run forever."""
        for watch in self._watches:
            if watch.guard.check.probe is None:
                continue
            answer = self._sample(watch)
            settled = answer is None or watch.too_early or bool(watch.guard.check.record_only)
            if answer is not None and answer.answer in UNDECIDED and not settled:
                raise StepError(f"cannot begin: guard {answer.id} can't be answered here: {answer.text}")

    def _keep(self) -> None:
        try:
            while not self._done.wait(max(0.0, min(one.due for one in self._watches) - time.monotonic())):
                for watch in self._watches:
                    if watch.due <= time.monotonic() and not self._done.is_set():
                        self._sample(watch)
                    if watch.levels.stop:
                        self._insist(watch)
        except Exception as error:  # noqa: BLE001 - whatever it is: a run must not continue unguarded
            if not self._done.is_set():
                self.control.ask_stop("its guards", f"they can't be sampled any more: {type(error).__name__}: {error}")

    def _sample(self, watch: _Watch) -> CheckAnswered | None:
        """Sample one guard, act on the answer, and schedule its next sample."""
        began = time.monotonic()
        if self._mute(watch):
            watch.levels.forget()
            watch.due = began + watch.guard.every
            return None
        # Without the lock: a probe may take long, and the end of the step must not wait for it.
        answer = self._asked(watch)
        now = time.monotonic()
        if answer is None:
            watch.due = now + NEVER_S
            return None
        with self._lock:
            if not self._done.is_set():
                self._weigh(watch, answer, now)
        rest = max(watch.guard.every, BUDGET * answer.seconds)
        watch.due = now + (min(watch.guard.every, CONFIRM_S) if watch.levels.suspected else rest)
        return answer

    def _asked(self, watch: _Watch) -> CheckAnswered | None:
        scope = Scope.of(self.scope).tuned(self.control.limits)
        return watch.sample(self.look, scope, self._own(), step=self.entry.id)

    def _mute(self, watch: _Watch) -> bool:
        """Whether to skip a guard on the step's own figures: there are none yet, or they are frozen because the run is held."""
        if watch.guard.check.probe is not None or not watch.names - self.scope.keys() - TIMES:
            return False
        return self._latest is None or self.control.standing

    def _own(self) -> Mapping[str, Value]:
        left = self.window_left()
        times: dict[str, Value] = {
            "status_age_s": self.status_age(),
            "elapsed_s": round(time.monotonic() - self._began, 1),
            "window_left_s": None if left is None else round(left, 1),
        }
        return {**(self._latest.values if self._latest is not None else {}), **times}

    # ─── acting on samples ──────────────────────────────────────────────────────────────────────────────────────────
    def _weigh(self, watch: _Watch, answer: CheckAnswered, now: float) -> None:
        levels = watch.levels
        if levels.hold and watch.by not in self.control.holds:  # a person has released it since the last sample
            levels.acknowledge()
        before = (levels.hold, levels.halvings, levels.warned)
        if not watch.guard.check.record_only and not watch.too_early:
            levels.take(self._worded(watch, answer), now, most_halvings=self._most_halvings(watch))
        acted = bool(levels.stop) or before != (levels.hold, levels.halvings, levels.warned)
        if acted or watch.recorded is None or watch.recorded.answer is not answer.answer:
            self._record(watch, answer)
        if levels.hold != before[0]:
            self._hold(watch, answer)
        if levels.halvings != before[1]:
            self._brake(watch, answer)
        if levels.stop:
            self.control.ask_stop(watch.by, levels.stop)
            self.control.take_back |= watch.guard.action is GuardAction.ROLLBACK and self.control.stop_by == watch.by

    def _worded(self, watch: _Watch, answer: CheckAnswered) -> Reading:
        reading, lasting = watch.reading(answer), watch.guard.hold_for
        return reading._replace(text=f"{reading.text}, for {format_duration(lasting)}") if lasting else reading

    def _record(self, watch: _Watch, answer: CheckAnswered) -> None:
        self.emit(answer)
        watch.recorded = answer

    def _hold(self, watch: _Watch, answer: CheckAnswered) -> None:
        if not watch.levels.hold:
            self.control.let_go(watch.by, who=watch.by, reason=_reason(answer))
            return
        advice = VAIN if watch.guard.check.probe is None else ""
        rest = watch.guard.hibernate if watch.levels.level is Level.HIBERNATES else 0.0
        self.control.hold(Hold(watch.by, watch.levels.hold + advice, longest=watch.guard.longest_hold + rest))

    # ─── batches ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _brake(self, watch: _Watch, answer: CheckAnswered) -> None:
        """Limit the batch duration according to the halvings; without any, remove the limit."""
        halvings = watch.levels.halvings
        seconds = round(max(self._base(watch) / 2**halvings, SMALLEST_S), 4) if halvings else None
        watch.usual = self._base(watch) if halvings else None
        self.control.brake(watch.by, seconds)
        self.emit(Tuned(by=watch.by, reason=_reason(answer), settings={"batch_seconds": seconds or "as before"}))

    def _most_halvings(self, watch: _Watch) -> int:
        return max(0, ceil(log2(self._base(watch) / SMALLEST_S)))

    def _base(self, watch: _Watch) -> float:
        """The batch duration without this guard: as tuned by a person, else that of the last batch."""
        measured = self._latest.batch_s if self._latest is not None else None
        return watch.usual or self.control.tuning.batch_seconds or measured or BATCH_S

    # ─── ending ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _insist(self, watch: _Watch) -> None:
        """Enforce a stop: if no safe point is reached in time, cancel statements in flight."""
        if self._done.wait(PATIENCE_S):
            return
        while not self._done.is_set():
            with self._lock:
                if not self._done.is_set():
                    self.control.cut(watch.by, watch.levels.stop)
            self._done.wait(AGAIN_S)

    def _end(self, thread: threading.Thread) -> None:
        """End sampling, record each guard's last answer, and withdraw all holds and limits."""
        with self._lock:
            self._done.set()
        if thread.is_alive():
            thread.join(PROMPT_S)
            if thread.is_alive() and self.control.cancel is not None:
                self.control.cancel()  # a slow probe of ours; the step has ended, so nothing else is in flight
                thread.join(PATIENCE_S)
        with contextlib.suppress(TrailBroken):  # the next append of the run will raise it
            for watch in self._watches:
                self._last_word(watch)
        for watch in self._watches:
            self.control.let_go(watch.by, who=watch.by, reason="its step has ended")
            self.control.brake(watch.by, None)

    def _last_word(self, watch: _Watch) -> None:
        """Record the last answer; a guard on the step's own figures is asked once more, a probe is not."""
        own = watch.guard.check.probe is None
        answer = watch.last
        if own and not self._mute(watch):
            answer = self._asked(watch)
        if answer is None or (own and watch.recorded is None and answer.answer is not Answer.PASS):
            return  # never decided anything
        if watch.recorded is None or watch.recorded.sampled < answer.sampled:
            self.emit(answer)


def _reason(answer: CheckAnswered) -> str:
    return f"{answer.id} answered {answer.answer}: {answer.text}"


def _number(value: Value) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _difference(now: Value, before: Value) -> int | Decimal | None:
    """The exact difference (floats count as the decimals that they print as); None if either is not a finite number."""
    later, earlier = exact(now), exact(before)
    if not isinstance(later, int | Decimal) or not isinstance(earlier, int | Decimal):
        return None
    if isinstance(later, int) and isinstance(earlier, int):
        return later - earlier
    if not (Decimal(later).is_finite() and Decimal(earlier).is_finite()):
        return None
    return Context(prec=DIGITS).subtract(Decimal(later), Decimal(earlier))
