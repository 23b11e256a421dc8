"""Shows a verdict: on a terminal, as Markdown for a comment on a pull request, and as findings for SARIF."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from runner.common import terminal
from runner.common.markdown import code, fenced, plain
from runner.plan import plan
from runner.playbook.yaml_reader import Mark
from runner.report import plan_cards
from runner.review.diff.change import Direction, PlaybookChange
from runner.review.diff.verdict import DiffVerdict
from runner.review.findings import Finding, RuleSummary, Severity
from steps.contract import cutting

_CALL = re.compile(r"(?<!\w)@(?=\w)|(?<![\w&])#(?=\w)")
_MARKS = {
    Direction.WEAKENS: ("✗", "red"),
    Direction.CHANGES: ("?", "yellow"),
    Direction.STRENGTHENS: ("✓", "green"),
    Direction.NEUTRAL: ("·", ""),
}
_TITLES = {
    Direction.WEAKENS: "Weakens",
    Direction.CHANGES: "Changes the effect (not decided whether it weakens)",
    Direction.STRENGTHENS: "Strengthens",
    Direction.NEUTRAL: "Neutral",
}
MOST = 30  # places of one change that are listed
MOST_LINES, LONGEST = 60, 300  # of one change's diff of texts, in a comment; and the characters of a line or a value
MOST_CHARACTERS = 50_000  # of the whole comment: GitHub takes 65,536, and others add to it
MARKER = "<!-- runbook diff -->"  # by which a comment is found again, to be updated


# ─── the terminal ───────────────────────────────────────────────────────────────────────────────────────────────────
def show(verdict: DiffVerdict) -> None:
    """Print the verdict, the weakenings first."""
    terminal.say(f"{verdict.old.label} → {verdict.new.label}: {verdict.words}")
    for one in verdict.changes:
        mark, colour = _MARKS[one.direction]
        where = f"  ({one.mark})" if one.mark is not None else ""
        terminal.say(f"  {mark} {one.direction}: {one.what}{where}", mark=mark, colour=colour)
        for line in one.lines:
            terminal.say(f"      {line}")
        for line in _reached(one):
            terminal.say(f"      {line}")
        if one.why:
            terminal.say(f"      {one.why}")
    for run in verdict.voided:
        terminal.say(f"  ! voids approvals of the open run {run.run}: {', '.join(run.approvals)}", colour="yellow")


def _reached(one: PlaybookChange) -> Iterator[str]:
    """The places that it reaches, if the subject doesn't say them already."""
    if len(one.reaches) == 1 and not one.subject.startswith(("limit ", "query ")):
        yield f"in {one.reaches[0].playbook}"
        return
    for reach in one.reaches[:MOST]:
        yield f"{reach}: {reach.direction}"
    if len(one.reaches) > MOST:
        yield f"… and {len(one.reaches) - MOST} more"


# ─── Markdown ───────────────────────────────────────────────────────────────────────────────────────────────────────
def markdown(verdict: DiffVerdict) -> str:
    """The verdict and the weakenings first, then the rest, then the cards of the steps that differ.

    All that a playbook says stands in code, where nothing is a link, a picture, or a call for somebody's attention. What would
    make it longer than a comment may be is left out, from the end.
    """
    lines = [MARKER, f"## Playbooks: {verdict.words}", "", f"{_code(verdict.old.label)} → {_code(verdict.new.label)}"]
    for run in verdict.voided:
        lines += ["", f"**Voids approvals** of the open run {_code(run.run)}: {_code(', '.join(run.approvals))}"]
    return _as_long_as_may_be(lines, [*_sections(verdict), *_cards(verdict)])


def _as_long_as_may_be(lines: list[str], blocks: Sequence[Sequence[str]]) -> str:
    room = MOST_CHARACTERS - sum(len(line) + 1 for line in lines)
    for number, block in enumerate(blocks):
        room -= sum(len(line) + 1 for line in block)
        if room < 0:
            left = len(blocks) - number
            lines += ["", f"**Cut here**: {left} more part{'s' * (left > 1)} of this; `runbook diff` prints all of it."]
            break
        lines += block
    return "\n".join(lines) + "\n"


def _sections(verdict: DiffVerdict) -> Iterator[list[str]]:
    """Each change by itself, under the title of its direction; what is neutral folded away."""
    for direction, title in _TITLES.items():
        found = [_item(one) for one in verdict.of(direction)]
        if found and direction is Direction.NEUTRAL:
            lines = [line for one in found for line in one]
            yield ["", f"<details><summary>{title}: {len(found)}</summary>", "", *lines, "", "</details>"]
        elif found:
            yield ["", f"### {title}", "", *found[0]]
            yield from found[1:]


def _code(text: str) -> str:
    return code(cutting.shortened(text, LONGEST))


def _item(one: PlaybookChange) -> list[str]:
    where = f" ({_code(str(one.mark))})" if one.mark is not None else ""
    lines = [f"- **{_code(one.subject)}**{_values(one)}{where}"]
    lines += [f"  - {_code(line)}" for line in (*_reached(one), *([one.why] if one.why else []))]
    if one.lines:
        shown = [cutting.shortened(line, LONGEST) for line in one.lines[:MOST_LINES]]
        shown += [f"… and {len(one.lines) - MOST_LINES} more lines"] * (len(one.lines) > MOST_LINES)
        lines += ["", *(f"  {line}" for line in fenced("\n".join(shown), "diff")), ""]
    return lines


def _values(one: PlaybookChange) -> str:
    if one.lines or not (one.old or one.new):
        return ""
    if not one.old:
        return f": new: {_code(one.new)}"
    return f": {_code(one.old)} → {_code(one.new)}" if one.new else f": gone: {_code(one.old)}"


def _cards(verdict: DiffVerdict) -> Iterator[list[str]]:
    """The cards of the steps that a change reaches, as they are now."""
    steps: dict[str, set[str]] = {}
    for one in verdict.changes:
        for reach in one.reaches:
            if reach.where.startswith("step "):
                steps.setdefault(reach.playbook, set()).add(reach.where.removeprefix("step ").partition(",")[0])
    for name, ids in steps.items():
        playbook = verdict.new.playbooks[name]
        cards = [card for card in plan.plan(playbook).cards if card.id in ids]
        if cards:
            table = [_quiet(line) for line in plan_cards.rows(cards)]
            yield ["", f"<details><summary>{name}: the steps as they are now</summary>", "", *table, "", "</details>"]


def _quiet(cells: str) -> str:
    """A row of a table in which no name or number is called: `@somebody`, `#7`."""
    return _CALL.sub(r"\g<0>&#8203;", cells)


# ─── findings ───────────────────────────────────────────────────────────────────────────────────────────────────────
_RULES = {
    Direction.WEAKENS: RuleSummary("DIFF1", Severity.ERROR, "A change makes a check, gate, guard or way back weaker"),
    Direction.CHANGES: RuleSummary("DIFF2", Severity.WARNING, "A change of effect that isn't decided to be harmless"),
}


def rules() -> tuple[RuleSummary, ...]:
    return tuple(_RULES.values())


def findings(changes: Iterable[PlaybookChange], *, otherwise: Mark) -> Iterator[Finding]:
    """What counts, as findings. otherwise: the place of what has none, because it is gone."""
    for one in changes:
        if one.direction in _RULES:
            rule = _RULES[one.direction]
            reached = ", ".join(str(reach) for reach in one.reaches[:MOST])
            yield Finding(
                rule.code, rule.severity, one.mark or otherwise, plain(f"{one.direction}: {one.what} [{reached}]")
            )
