"""Renders a plan, one change card per step: for a terminal, as JSON, and as Markdown for pull requests and reports."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO, cast

from runner.common.markdown import code, escaped, fenced, plain, table
from runner.common.terminal import painted, spoken
from runner.plan.plan import Card, Plan
from runner.playbook.check_text import cut
from runner.trail.events import CheckAnswered, Json, NotDue
from steps.contract import Answer, State, Statement
from steps.contract.values import readable_all

LABEL = 14  # width of the label column
NARROW, WIDE = 50, 140  # limits of the width to wrap to
FIRST_LINES = 3  # statements shown of each card without --sql
DIGEST = 16  # hex digits shown of a digest, for comparing by eye
_COLOURS = {State.DONE: "green", State.PARTLY: "yellow", State.UNKNOWN: "yellow", State.NOT_DONE: ""}
_ANSWERS = {
    Answer.PASS: ("✓", "green"),
    Answer.FAIL: ("✗", "red"),
    Answer.ERROR: ("!", "red"),
    Answer.UNKNOWN: ("?", "yellow"),
}
_TOKEN = re.compile(r"""(?:'[^']*'|"[^"]*"|[^\s'"]|['"])+""")

Answers = Sequence[CheckAnswered | NotDue]


# ─── the terminal ───────────────────────────────────────────────────────────────────────────────────────────────────
def show(plan: Plan, *, checks: Answers = (), show_sql: bool = False, out: TextIO | None = None) -> None:
    """Print the plan on a terminal. checks: answers of a dry run to preconditions and requirements."""
    pen = _Pen(out or sys.stdout)
    _header(pen, plan, checks)
    for number, card in enumerate(plan.cards, start=1):
        _card(pen, card, number=number, of=len(plan.cards), show_sql=show_sql)
    _footer(pen, plan)


@dataclass
class _Pen:
    """Writes labelled, wrapped lines."""

    out: TextIO
    width: int = field(default_factory=lambda: max(NARROW, min(shutil.get_terminal_size((100, 24)).columns, WIDE)))

    def line(self, text: str = "") -> None:
        spoken(self.out, text + "\n")

    def labelled(self, label: str, text: str, *, colour: str = "") -> None:
        """Print `label   text`, wrapped beside the label; nothing if the text is empty."""
        if text:
            self.lines(
                label,
                textwrap.wrap(plain(text), self.room, break_on_hyphens=False, break_long_words=False),
                colour=colour,
            )

    def each(self, label: str, texts: Iterable[str], *, colour: str = "") -> None:
        """Print several texts under one label, each with a hanging indent."""
        for number, text in enumerate(texts):
            lines = textwrap.wrap(
                plain(text), self.room, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
            )
            self.lines(label if number == 0 else "", lines, colour=colour)

    def lines(self, label: str, lines: Iterable[str], *, colour: str = "") -> None:
        for number, line in enumerate(lines):
            shown = painted(line, colour, self.out) if colour else line
            self.line(f"  {label if number == 0 else '':<{LABEL}}{shown}".rstrip())

    @property
    def room(self) -> int:
        return self.width - LABEL - 2


def _header(pen: _Pen, plan: Plan, checks: Answers) -> None:
    for line in textwrap.wrap(
        plain(f"{plan.name} · {plan.title}"), pen.width, subsequent_indent="  ", break_long_words=False
    ):
        pen.line(line)
    pen.labelled("digest", plan.digest[:DIGEST])
    pen.labelled("target", plan.target)
    pen.labelled("limits", ", ".join(plan.limits))
    pen.labelled("window", plan.window)
    pen.labelled("waits", plan.patience)
    answered = {one.id: one for one in checks}
    _asked(pen, "requires", plan.requires, answered, name=lambda words: words.split(" ")[0])
    _asked(pen, "before", plan.preconditions, answered, name=lambda words: words.split(":")[0])


def _asked(
    pen: _Pen,
    label: str,
    wanted: Iterable[str],
    answered: Mapping[str, CheckAnswered | NotDue],
    *,
    name: Callable[[str], str],
) -> None:
    """Print what must hold before the run, with the answer if it was asked."""
    for number, words in enumerate(wanted):
        text, colour = words, ""
        if (answer := answered.get(name(words))) is not None:
            text, colour = _answer(answer)
        pen.each(label if number == 0 else "", [text], colour=colour)


def _answer(one: CheckAnswered | NotDue) -> tuple[str, str]:
    if isinstance(one, NotDue):
        return f"· {one.id}: not due here, decided by {one.due}", ""
    mark, colour = ("·", "cyan") if one.records_only else _ANSWERS[one.answer]
    that = f"  ({one.that})" if one.that else ""
    word = "recorded only" if one.records_only else one.answer.value
    return f"{mark} {one.id}: {word}{f', {one.text}' if one.text else ''}{that}", "yellow" if one.warned else colour


def _card(pen: _Pen, card: Card, *, number: int, of: int, show_sql: bool) -> None:
    pen.line()
    pen.line(f"{number:>{len(str(of))}}  {plain(card.id)} · {plain(card.type)}")
    pen.labelled("what", card.what)
    pen.labelled("why", card.why)
    pen.each("only when", [one for one in (card.when, card.when_now) if one])
    pen.labelled("now", state_words(card), colour=_COLOURS[card.state.state] if card.state else "")
    _statements(pen, card.statements, show_sql=show_sql)
    pen.labelled("lock", card.lock)
    pen.labelled("rows", rows_words(card))
    pen.labelled("taking back", card.taking_back, colour="yellow" if card.taking_back.startswith("one way") else "")
    pen.each("gate", card.gate)
    pen.labelled("on failure", card.on_failure if card.on_failure != "stop" else "")
    pen.labelled("if stopped", card.if_stopped_here)
    pen.labelled("waits", card.patience)
    pen.each("fault", card.faults, colour="red")
    pen.each("later", card.later)


def _statements(pen: _Pen, statements: Sequence[Statement], *, show_sql: bool) -> None:
    if show_sql:
        pen.lines("SQL", _in_full(statements, room=pen.room))
        return
    lines = [cut(" ".join(plain(one.sql).split()), pen.room) for one in statements]
    if len(lines) > FIRST_LINES:
        lines = [*lines[:FIRST_LINES], f"… {len(lines) - FIRST_LINES} more: --sql shows all of it"]
    pen.lines("SQL", lines)


def _in_full(statements: Sequence[Statement], *, room: int) -> list[str]:
    """All statements, to be copied; parameters and notes follow the last of consecutive statements that share them."""
    lines = []
    for number, one in enumerate(statements):
        lines += [part for line in written(one).splitlines() for part in _broken(line.rstrip(), room)]
        after = statements[number + 1] if number + 1 < len(statements) else None
        if after is None or after.params != one.params or after.note != one.note:
            lines += (
                textwrap.wrap(f"bound: {bound(one)}", room, subsequent_indent="       ", break_long_words=False)
                if one.params
                else []
            )
            lines += (
                textwrap.wrap(f"({plain(one.note)})", room, subsequent_indent=" ", break_long_words=False)
                if one.note
                else []
            )
    return lines


def written(one: Statement) -> str:
    """A statement as it would be written in a file."""
    return textwrap.dedent(plain(one.sql, lines=True)).strip().rstrip(";") + ";"


def bound(one: Statement) -> str:
    """The statement's bound parameters in words."""
    return ", ".join(f":{name} = {plain(repr(value))}" for name, value in one.params.items())


def _broken(line: str, room: int) -> list[str]:
    """Wrap a long line of SQL; not inside quotes, nor if a comment would swallow what follows."""
    if len(line) <= room or "--" in line or "$" in line or line.count("'") % 2:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    found, current = [], indent
    for token in _TOKEN.findall(line):
        joined = f"{current}{' ' if current.strip() else ''}{token}"
        if len(joined) > room and current.strip():
            found.append(current)
            joined = f"{indent}  {token}"
        current = joined
    return [*found, current]


def _footer(pen: _Pen, plan: Plan) -> None:
    pen.line()
    pen.each("proves it", plan.success_criteria)
    pen.each("monitors", plan.monitors)
    pen.labelled("rollback", plan.rollback)
    pen.each("notes", plan.notes)
    pen.each("faults", plan.faults, colour="red")


# ─── texts of a card ────────────────────────────────────────────────────────────────────────────────────────────────
def state_words(card: Card) -> str:
    """The step's current state in the database; "" if it was not asked, and for gates."""
    if card.state is None or not card.taking_back:
        return ""
    if card.state.state is State.DONE:
        return f"already applied: {card.state.evidence}"
    return f"{card.state.state.replace('_', ' ')}: {card.state.evidence}"


def rows_words(card: Card) -> str:
    return f"{card.rows:,}" if card.rows is not None else ""


# ─── JSON ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def document(plan: Plan) -> dict[str, Json]:
    """The plan as JSON."""
    return {
        "name": plan.name,
        "title": plan.title,
        "digest": plan.digest,
        "target": plan.target,
        "limits": list(plan.limits),
        "window": plan.window,
        "waits": plan.patience,
        "requires": list(plan.requires),
        "preconditions": list(plan.preconditions),
        "steps": [_document(card) for card in plan.cards],
        "success_criteria": list(plan.success_criteria),
        "monitors": list(plan.monitors),
        "rollback": plan.rollback,
        "notes": list(plan.notes),
        "faults": cast("list[Json]", plan.faults),
    }


def _document(card: Card) -> dict[str, Json]:
    return {
        "id": card.id,
        "type": card.type,
        "what": card.what,
        "why": card.why,
        "when": card.when,
        "when_now": card.when_now,
        "now": {"state": card.state.state, "evidence": card.state.evidence} if card.state is not None else None,
        "statements": [
            {
                "sql": one.sql,
                "params": cast("Json", readable_all(one.params)),
                "lock": one.lock,
                "length": one.length,
                "table": one.table,
                "transactional": one.transactional,
                "note": one.note,
            }
            for one in card.statements
        ],
        "lock": card.lock,
        "rows": card.rows,
        "taking_back": card.taking_back,
        "gate": list(card.gate),
        "on_failure": card.on_failure,
        "if_stopped_here": card.if_stopped_here,
        "faults": list(card.faults),
        "waits": card.patience,
        "later": list(card.later),
    }


# ─── Markdown ───────────────────────────────────────────────────────────────────────────────────────────────────────
_COLUMNS: Mapping[str, Callable[[Card], str]] = {
    "step": lambda card: f"{code(card.id)} {escaped(card.type)}",
    "what": lambda card: escaped(card.what) + (f"<br>*{escaped(card.why)}*" if card.why else ""),
    "only when": lambda card: "<br>".join(escaped(one) for one in (card.when, card.when_now) if one),
    "now": lambda card: escaped(state_words(card)),
    "lock": lambda card: escaped(card.lock),
    "rows": lambda card: escaped(rows_words(card)),
    "taking back": lambda card: escaped(card.taking_back),
    "gate": lambda card: "<br>".join(escaped(check) for check in card.gate),
    "on failure": lambda card: escaped(card.on_failure) if card.on_failure != "stop" else "",
    "if stopped here": lambda card: escaped(card.if_stopped_here),
}


def rows(cards: Sequence[Card], *, more: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """The cards as a Markdown table with a row per step; empty columns are left out.

    more: further columns, heading → one Markdown cell per card.
    """
    columns = {"#": [str(number) for number in range(1, len(cards) + 1)]}
    columns |= {heading: [cell(card) for card in cards] for heading, cell in _COLUMNS.items()}
    columns |= {heading: list(cells) for heading, cells in (more or {}).items()}
    filled = {heading: cells for heading, cells in columns.items() if any(cells)}
    return table(list(filled), [list(cells) for cells in zip(*filled.values(), strict=True)])


def markdown(plan: Plan) -> str:
    """The plan as Markdown for a pull request: a table of the cards, then the SQL."""
    lines = [f"## {escaped(plan.title)}", "", f"{code(plan.name)} · digest {code(plan.digest[:DIGEST])}"]
    lines[-1] += f" · target {code(plan.target)}" if plan.target else ""
    lines += ["", f"**Limits** {', '.join(map(code, plan.limits))}"] if plan.limits else []
    lines += ["", f"**Window** {escaped(plan.window)}"] if plan.window else []
    lines += _bullets("Requires", plan.requires) + _bullets("Before it begins", plan.preconditions)
    lines += ["", *rows(plan.cards), *_bullets("What proves it", plan.success_criteria)]
    lines += _bullets("What goes on being asked", plan.monitors)
    lines += ["", f"**Rollback** {escaped(plan.rollback)}"]
    lines += _bullets("Notes", plan.notes) + _bullets("Faults", plan.faults)
    for card in plan.cards:
        if card.statements:
            sql = "\n".join(_commented(card.statements))
            lines += ["", f"SQL of {code(card.id)}", "", *fenced(sql, "sql")]
    return "\n".join(lines) + "\n"


def _commented(statements: Sequence[Statement]) -> list[str]:
    lines = []
    for one in statements:
        lines += [written(one)] + ([f"-- bound: {bound(one)}"] if one.params else [])
    return lines


def _bullets(title: str, items: Sequence[str]) -> list[str]:
    return ["", f"**{title}**", "", *(f"- {escaped(item)}" for item in items)] if items else []
