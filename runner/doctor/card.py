"""A diagnosis as text for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.common import terminal
from runner.common.secrets import Masks
from runner.doctor.diagnosis import Diagnosis, Examined, StepSeen
from steps.catalog.must_hold import MustHoldAnswer
from steps.catalog.shape import ShapeState
from steps.catalog.shape_compare import Comparison, PartState

SHOWN = 3  # parts that are named, of those that can't be seen for one reason
_WORDS = {
    ShapeState.WHOLE: "whole",
    ShapeState.MORE: "more than declared",
    ShapeState.HALF: "half",
    ShapeState.ABSENT: "absent",
    ShapeState.CHANGING: "still being changed",
    ShapeState.UNKNOWN: "unknown",
}


def show(found: Diagnosis, masks: Masks) -> None:
    """Print the diagnosis."""
    for line in _lines(found):
        terminal.say(masks.mask(line), hang=len(line) - len(line.lstrip()) + 2)
    for n, then in enumerate(found.next):
        terminal.labelled("next" if n == 0 else "", masks.mask(then))


def _lines(found: Diagnosis) -> Iterator[str]:
    yield f"doctor: {found.name or 'what was left behind'} on {found.target} (only read)"
    for one in found.shapes:
        yield ""
        yield from _shape_lines(one)
    if found.run:
        yield ""
        yield f"run {found.name}: {found.run}"
    if found.steps:
        yield ""
        yield "steps, by what the database says of each"
        for step in found.steps:
            yield from _step_lines(step)
    yield ""
    yield f"left behind: {'nothing was found' if not found.leftovers and not found.open_runs else ''}".rstrip()
    yield from (f"  {'·' if one.harmless else '✗'} {one}" for one in found.leftovers)
    yield from (f"  ✗ {one}" for one in found.open_runs)
    yield from (f"  ? not asked: {one}" for one in found.unasked)


def _shape_lines(one: Examined) -> Iterator[str]:
    seen = one.comparison
    there = len(seen.those(PartState.THERE))
    yield f"shape {seen.shape.name}: {_state(seen)} ({there} of {len(seen.shape.parts)} parts as declared)"
    yield from (f"  ! {who}" for who in seen.changers)
    if seen.state is not ShapeState.ABSENT:
        yield from (f"  ✗ {fault}" for fault in seen.faults)
    yield from (f"  + more than declared: {name}" for name in seen.more)
    yield from _unseen(seen)
    if one.data:
        yield "  data, by must_hold:"
        for answered in one.data:
            yield from _data_lines(answered)


def _unseen(seen: Comparison) -> Iterator[str]:
    """The parts that can't be seen, those with the same reason on one line."""
    reasons: dict[str, list[str]] = {}
    for finding in seen.those(PartState.UNSEEN):
        reasons.setdefault(finding.evidence, []).append(str(finding.part))
    for why, parts in reasons.items():
        more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
        yield f"  ? {', '.join(parts[:SHOWN])}{more}: {why}"


def _state(seen: Comparison) -> str:
    if seen.state is ShapeState.ABSENT and seen.shape.base:
        return f"absent: nothing of it is there that {seen.shape.base} hasn't"
    return _WORDS[seen.state]


def _data_lines(one: MustHoldAnswer) -> Iterator[str]:
    why = f" ({one.why})" if one.why else ""
    if one.unknown:
        yield f"    ? {one.name}: could not be asked: {one.unknown}"
        return
    parts = [f"{one.rows:,} rows at fault" if one.rows else "", _unreadable(one)]
    if one.holds:
        yield f"    ✓ {one.name}"
        return
    yield f"    ✗ {one.name}: {', '.join(part for part in parts if part)}{why}"
    yield from (f"        e.g. {example}" for example in one.examples)


def _unreadable(one: MustHoldAnswer) -> str:
    least = "at least " if one.cut else ""
    return f"{least}{one.unreadable:,} rows for which it can't be evaluated" if one.unreadable else ""


def _step_lines(step: StepSeen) -> Iterator[str]:
    evidence = f": {step.evidence}" if step.evidence else ""
    yield f"  {step.state.replace('_', ' '):<9} {step.id}: {step.what}{evidence}"
    yield from (f"      ✗ {fault}" for fault in step.faults)


# ─── JSON ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def document(found: Diagnosis, masks: Masks) -> Any:
    """The diagnosis as JSON data."""
    return masks.mask_data(
        {
            "target": found.target,
            "subject": found.name,
            "well": found.well,
            "shapes": [_shape(one) for one in found.shapes],
            "run": found.run,
            "steps": [{**vars(one), "faults": list(one.faults)} for one in found.steps],
            "leftovers": [one._asdict() for one in found.leftovers],
            "open_runs": list(found.open_runs),
            "not_asked": list(found.unasked),
            "next": list(found.next),
        }
    )


def _shape(one: Examined) -> dict[str, Any]:
    seen = one.comparison
    return {
        "name": seen.shape.name,
        "state": str(seen.state),
        "declared": len(seen.shape.parts),
        "there": len(seen.those(PartState.THERE)),
        "parts": [
            {"part": str(each.part), "found": str(each.found), "evidence": each.evidence}
            for each in seen.findings
            if each.found is not PartState.THERE
        ],
        "more": list(seen.more),
        "changers": [{"pid": each.pid, "who": each.who} for each in seen.changers],
        "must_hold": [{**vars(each), "holds": each.holds} for each in one.data],
    }
