"""Shows a verdict: on a terminal, as Markdown for a comment on a pull request, and as findings for SARIF."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runner.common import terminal
from runner.common.markdown import code, escaped, fenced, plain
from runner.plan import plan
from runner.playbook.yaml_reader import Mark
from runner.report import plan_cards
from runner.review.diff.change import Direction, PlaybookChange
from runner.review.diff.verdict import DiffVerdict
from runner.review.findings import Finding, RuleSummary, Severity

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
    """The verdict and the weakenings first, then the rest, then the cards of the steps that differ."""
    lines = [MARKER, f"## Playbooks: {verdict.words}", "", f"{code(verdict.old.label)} → {code(verdict.new.label)}"]
    for run in verdict.voided:
        lines += ["", f"**Voids approvals** of the open run {code(run.run)}: {escaped(', '.join(run.approvals))}"]
    for direction, title in _TITLES.items():
        found = verdict.of(direction)
        if found:
            folded = direction is Direction.NEUTRAL
            lines += ["", *([f"<details><summary>{title}: {len(found)}</summary>"] if folded else [f"### {title}"]), ""]
            lines += [line for one in found for line in _item(one)]
            lines += ["", "</details>"] if folded else []
    return "\n".join([*lines, *_cards(verdict)]) + "\n"


def _item(one: PlaybookChange) -> list[str]:
    where = f" ({escaped(str(one.mark))})" if one.mark is not None else ""
    lines = [f"- **{escaped(one.subject)}**{_values(one)}{where}"]
    lines += [f"  - {escaped(line)}" for line in (*_reached(one), *([one.why] if one.why else []))]
    if one.lines:
        lines += ["", *(f"  {line}" for line in fenced("\n".join(one.lines), "diff")), ""]
    return lines


def _values(one: PlaybookChange) -> str:
    if one.lines or not (one.old or one.new):
        return ""
    if not one.old:
        return f": new: {code(one.new)}"
    return f": {code(one.old)} → {code(one.new)}" if one.new else f": gone: {code(one.old)}"


def _cards(verdict: DiffVerdict) -> Iterator[str]:
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
            yield from ("", f"<details><summary>{escaped(name)}: the steps as they are now</summary>", "")
            yield from plan_cards.rows(cards)
            yield from ("", "</details>")


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
