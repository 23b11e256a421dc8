"""Figures that contradict each other: limits, durations, rates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple, cast

from runner.common.durations import format_duration
from runner.playbook.model import Entry, Guard
from runner.review.findings import Severity
from runner.review.intervals import Interval, intervals
from runner.review.rule import Hit, rule
from runner.review.subject import LintSubject
from steps.contract import Value, running_figures
from steps.expressions.evaluate import Expression


@rule("RB111", Severity.WARNING)
def limits_contradict(subject: LintSubject) -> Iterator[Hit]:
    """Limits contradict each other.

    A guard that is broken later than it is critical never acts before the emergency; a `warn:` that isn't tighter than `that:` never
    warns; a `resume:` that isn't stricter ends a hold where the next sample begins it again; and what no value can fulfil stops
    every run.

    Found in::

        limits: {lag_s: 600, lag_critical_s: 120}
        steps:
          - id: mark
            type: sql
            text: UPDATE sessions SET seen = true WHERE id = 1
            guards:
              - {id: lag, check: replication, that: lag_s <= limits.lag_s, critical: lag_s > limits.lag_critical_s}

    Instead::

        limits: {lag_s: 10, lag_critical_s: 120}
        steps:
          - id: mark
            type: sql
            text: UPDATE sessions SET seen = true WHERE id = 1
            guards:
              - {id: lag, check: replication, that: lag_s <= limits.lag_s, critical: lag_s > limits.lag_critical_s}
    """
    known = _known(subject)
    for entry in subject.playbook.entries:
        for guard in entry.guards:
            yield from _of_guard(guard, known)
    for check in subject.checks:
        holds = _of(check.that, known)
        for name, interval in holds.items():
            if interval.empty:
                yield Hit(check.mark, f"no value of {name} can fulfil {_text(check.that)}", step=check.id)
        for name, interval in _of(check.warn, known).items():
            if name in holds and holds[name].inside(interval):
                why = f"`warn: {_text(check.warn)}` isn't tighter than `that: {_text(check.that)}`: it never warns"
                yield Hit(check.mark, why, "swap them, or tighten warn", check.id)


def _of_guard(guard: Guard, known: Mapping[str, Value]) -> Iterator[Hit]:
    check, holds = guard.check, _of(guard.check.that, known)
    for name, interval in _of(guard.critical, known).items():
        if name in holds and not holds[name].meet(interval).empty:
            why = f"values of {name} are critical ({_text(guard.critical)}) while the guard still holds ({_text(check.that)})"
            yield Hit(check.mark, why, f"put the limit for {name} below its critical level", check.id)
    for name, interval in _of(guard.resume, known).items():
        if name in holds and not interval.inside(holds[name]):
            why = f"`resume: {_text(guard.resume)}` ends a hold where `that: {_text(check.that)}` is still broken"
            yield Hit(check.mark, why, "write resume stricter than that", check.id)


def _known(subject: LintSubject) -> Mapping[str, Value]:
    """The values of limits and inputs, by their dotted names."""
    playbook = subject.playbook
    found = {f"limits.{name}": value for name, value in playbook.limits.items()}
    found |= {f"inputs.{name}": value for name, value in playbook.values.items()}
    return cast("Mapping[str, Value]", found)


def _of(expression: Expression | None, known: Mapping[str, Value]) -> Mapping[str, Interval]:
    return (intervals(expression.text, known) or {}) if expression is not None else {}


def _text(expression: Expression | None) -> str:
    return expression.text if expression is not None else ""


# ─── rows ÷ rate ────────────────────────────────────────────────────────────────────────────────────────────────────────
class _Said(NamedTuple):
    """A number that the playbook states, in its own words."""

    value: float
    words: str


_SPAN = re.compile(
    r"(\d+(?:[.,]\d+)?)\s*(?:(?:to|-|–)\s*(\d+(?:[.,]\d+)?)\s*)?(s|sec|seconds?|min|minutes?|h|hours?)\b"
)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_COUNT = re.compile(
    r"(?<![\w.,])(\d{1,3}(?:,\d{3})+|\d{4,}|\d+(?:\.\d+)?\s?(?:M|k|million))\s+([a-z_]+)", re.IGNORECASE
)
_TIMES = {"k": 1_000, "m": 1_000_000, "million": 1_000_000}
_SLACK = 1.05  # two figures that differ by less are the same, rounded


@rule("RB112", Severity.WARNING)
def times_contradict(subject: LintSubject) -> Iterator[Hit]:
    """Rows, rate and duration contradict each other.

    Rows divided by the least rate that a guard or criterion asks for is the longest that the work may take. Where `takes:` is longer,
    the guard fires during the whole run as planned; where `window:` is shorter, the window closes on work that is as planned. And a
    batch of so many rows in such a time is a rate too.

    Found in::

        title: Fill 1,682,827 sessions
        takes: 90 to 120 min
        steps:
          - id: fill
            type: backfill
            table: sessions
            source: SELECT id, country FROM addresses
            match: source.id = target.address_id
            fill: [country]
            guards:
              - {id: speed, that: visited_per_second >= 1000, else: warn}

    Instead::

        title: Fill 1,682,827 sessions
        takes: 90 to 120 min
        steps:
          - id: fill
            type: backfill
            table: sessions
            source: SELECT id, country FROM addresses
            match: source.id = target.address_id
            fill: [country]
            guards:
              - {id: speed, that: visited_per_second >= 200, else: warn}
    """
    playbook = subject.playbook
    if playbook.window is not None and (takes := _span(playbook.takes)) and takes[0] > playbook.window * _SLACK:
        why = f"it takes {playbook.takes}, and the window is {format_duration(playbook.window)}"
        yield Hit(subject.mark("window"), why, "widen the window, or split the work")
    known = _known(subject)
    for path, entry, _written in subject.steps:
        rate = _least_rate(entry, known)
        if rate is None:
            continue
        yield from _too_long(subject, entry, rate)
        yield from _batches(subject, path, entry, rate)


def _too_long(subject: LintSubject, entry: Entry, rate: _Said) -> Iterator[Hit]:
    playbook, rows = subject.playbook, _rows(subject, entry)
    if rows is None:
        return
    longest = rows.value / rate.value
    shown = f"{rows.words} at {rate.words} take at most {format_duration(round(longest))}"
    takes = _span(playbook.takes)
    if takes and takes[0] > longest * _SLACK:
        why = f"{shown}, and `takes:` says {playbook.takes}: the rate would be broken all the time"
        yield Hit(subject.mark("takes"), why, f"ask for {rows.value / takes[1]:,.0f} rows a second", entry.id)
    if playbook.window is not None and playbook.window * _SLACK < longest:
        why = f"{shown}, and the window is {format_duration(playbook.window)}"
        yield Hit(subject.mark("window"), why, "widen the window, or ask for a higher rate", entry.id)


def _batches(subject: LintSubject, path: tuple[str | int, ...], entry: Entry, rate: _Said) -> Iterator[Hit]:
    """`batch: {time: 5 s, rows: [1000, 1000]}` fulfils no rate above 200 rows/s, if a batch takes the time that it may."""
    time, rows = subject.value(*path, "batch", "time"), subject.value(*path, "batch", "rows")
    span = _span(str(time))
    if span and isinstance(rows, list) and len(rows) == 2 and isinstance(most := rows[1], int):
        possible = most / span[0]
        if possible * _SLACK < rate.value:
            why = f"batches of {most:,} rows in {time} are {possible:,.0f} rows/s, and {rate.words} is asked for"
            yield Hit(subject.mark(*path, "batch"), why, "shorten the batch's time, or ask for less", entry.id)


def _least_rate(entry: Entry, known: Mapping[str, Value]) -> _Said | None:
    """The least rate that guards and criteria of a step ask for, in rows a second."""
    if not running_figures(entry.step).batch_ms:
        return None
    checks = [guard.check for guard in entry.guards] + list(entry.success_criteria)
    for check in checks:
        for name, interval in _of(check.that, known).items() if check.probe is None else ():
            if name.endswith("_per_second") and interval.low:
                return _Said(float(interval.low), f"{interval.low:,} rows/s ({check.id})")
    return None


def _rows(subject: LintSubject, entry: Entry) -> _Said | None:
    """How many rows the playbook says that a step has to do: in a limit, a precondition or in words."""
    table = str(getattr(entry.step, "table", "")).lower()
    playbook = subject.playbook
    for text in (playbook.takes, playbook.title, playbook.description, entry.why):
        for found in _COUNT.finditer(text):
            word = found[2].lower()
            if word in {"rows", "records"} or (len(word) > 3 and word.rstrip("s") in table):
                return _Said(_count(found[1]), found[0])
    for name, value in playbook.limits.items():
        if re.fullmatch(r"(expected_)?(rows|.*_rows|row_count)(_expected)?", name) and isinstance(value, int):
            return _Said(float(value), f"limits.{name} = {value:,}")
    return None


def _count(text: str) -> float:
    number, unit = re.match(r"([\d.,]+)\s?([A-Za-z]*)", text).groups()  # type: ignore[union-attr]  # _COUNT has matched it
    return float(Decimal(number.replace(",", "")) * _TIMES.get(unit.lower(), 1))


def _span(text: str) -> tuple[float, float] | None:
    """The shortest and longest time that a text names."""
    found = _SPAN.search(text)
    if found is None:
        return None
    unit = _SECONDS[found[3][0]]
    low = float(found[1].replace(",", ".")) * unit
    return low, float(found[2].replace(",", ".")) * unit if found[2] else low
