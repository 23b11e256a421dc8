"""Renders a playbook as the runbook that a person would have written: Markdown with a diagram of steps and gates.

The text depends on the playbook alone, so that it can be committed beside it, and `render --check` can say that it is stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from runner.common.durations import age
from runner.common.markdown import code, escaped, fenced, plain, table
from runner.plan import plan
from runner.plan.plan import Card, Plan
from runner.playbook.check_text import question
from runner.playbook.model import Check, Entry, Guard, Input, Playbook
from steps.contract import Gate

Named = TypeVar("Named")
MADE = "<!-- made by `runbook render` from {file}: edit that file, and render it again -->"
_QUOTE = re.compile(r'[";#<>{}\[\]()|`*~%&\\]')  # what a label in a diagram can't hold, or takes for Markdown


def render(playbook: Playbook) -> str:
    """The playbook as Markdown; it ends with a line end."""
    name, made = playbook.file.rpartition("/")[2], plan.plan(playbook)
    sections = [
        [MADE.format(file=name), "", f"# {escaped(playbook.title)}", *_paragraph(playbook.description)],
        _facts(playbook, made),
        ["## Overview", "", *_diagram(playbook)],
        _checks("## Before it begins", playbook.preconditions),
        ["## Steps"],
        *(
            _step(playbook, entry, card, f"{number}.")
            for number, (entry, card) in enumerate(_steps(playbook, made), start=1)
        ),
        _proof(playbook),
        _monitors(made),
        _way_back(playbook, made),
        _limits(playbook),
        _inputs(playbook),
        _queries(playbook),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    return text.replace(f"{Path(playbook.file).resolve().parent}/", "")  # files beside it, wherever it lies


def _paragraph(text: str) -> list[str]:
    return ["", escaped(text)] if text.strip() else []


def _facts(playbook: Playbook, made: Plan) -> list[str]:
    """What a reader asks first: whose it is, when it may run, how long it takes, what comes before it."""
    facts = {
        "Playbook": f"{code(playbook.name)}" + (f", revision {escaped(playbook.revision)}" if playbook.revision else ""),
        "Owner": escaped(playbook.owner),
        "Contacts": "<br>".join(f"{escaped(role.replace('_', ' '))}: {escaped(who)}" for role, who in playbook.contacts.items()),
        "Reviewed": escaped(playbook.reviewed) + (f", due again after {escaped(playbook.review_after)}" * bool(playbook.review_after)),
        "Links": "<br>".join(f"{escaped(name)}: {escaped(where)}" for name, where in playbook.links.items()),
        "Runs on": escaped(", ".join(f"{one} {bound}" for one, bound in playbook.target if bound)),
        "Takes": escaped(playbook.takes),
        "Window": escaped(made.window),
        "Requires": "<br>".join(
            code(one.playbook)
            + (f" within {age(one.within)}" if one.within else "")
            + (f" settled for {age(one.settled)}" if one.settled else "")
            for one in playbook.requires
        ),
        "Undoes the effect of": "<br>".join(map(code, playbook.removes)),
        "Run it": code(f"runbook exec {playbook.name} --target NAME"),
    }  # fmt: skip
    return table(["", ""], [[f"**{name}**", text] for name, text in facts.items() if text.strip(" ,")])


# ─── the diagram ────────────────────────────────────────────────────────────────────────────────────────────────────
def _diagram(playbook: Playbook) -> list[str]:
    """Steps and gates in their order, as Mermaid: gates are hexagons, what can't be taken back has a double border."""
    lines = ["flowchart TD"]
    lines += [f"    start([{_label('begin')}])"]
    before = "start"
    for number, entry in enumerate(playbook.entries, start=1):
        node = f"s{number}"
        lines.append(f"    {node}{_shape(entry, f'{number} · {entry.id}')}")
        lines.append(f"    {before} --> {node}")
        before = node
    lines.append(f"    finish([{_label(_end(playbook))}])")
    lines.append(f"    {before} --> finish")
    return fenced("\n".join(lines), "mermaid")


def _shape(entry: Entry, words: str) -> str:
    if isinstance(entry.step, Gate):
        needs = entry.step.describe().removeprefix("wait for ")
        return f"{{{{{_label(f'{words}: {needs}')}}}}}"
    label = _label(f"{words}: {entry.step.kind}")
    return f"[[{label}]]" if plan.one_way(entry) else f"[{label}]"


def _end(playbook: Playbook) -> str:
    count = sum(not one.record_only and not one.due for one in playbook.success_criteria)
    return f"succeeded: {count} criteria of the whole hold" if count > 1 else "succeeded"


def _label(text: str) -> str:
    """A label in quotes, without signs that end it or are Markdown there; `1. ` would be a list, which isn't drawn."""
    return f'"{_QUOTE.sub("", plain(text))}"'


# ─── the steps ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _steps(playbook: Playbook, made: Plan) -> Iterable[tuple[Entry, Card]]:
    return zip(playbook.entries, made.cards, strict=True)


def _step(playbook: Playbook, entry: Entry, card: Card, number: str) -> list[str]:
    lines = [f"### {number} {code(entry.id)}: {escaped(card.what)}", *_paragraph(card.why)]
    facts = {
        "Only when": question(entry.when) if entry.when is not None else "",
        "Message": entry.step.needs().message if isinstance(entry.step, Gate) else "",
        "Taking back": card.taking_back,
        "If it fails": card.on_failure if card.on_failure != "stop" else "",
        "If stopped here": card.if_stopped_here,
    }
    told = [f"- **{name}**: {escaped(text)}" for name, text in facts.items() if text]
    lines += ["", *told] if told else []
    lines += _checks("**Before**", entry.preconditions, apart=True)
    lines += _guards(entry.guards)
    lines += _checks("**Expected**", entry.success_criteria, apart=True)
    return lines + _as_written(playbook, entry)


def _checks(title: str, checks: Sequence[Check], *, apart: bool = False) -> list[str]:
    """A table of checks under a title; apart: with an empty line before it."""
    rows = [[code(check.id), _asked(check), escaped(_role(check))] for check in checks]
    return [*[""] * (apart and bool(rows)), title, "", *_table(["check", "what must hold", ""], rows)] if rows else []


def _asked(check: Check) -> str:
    asked = "" if check.due else question(check)
    why = f"<br>*{escaped(check.why)}*" if check.why else ""
    return f"{code(asked)}{why}"


def _role(check: Check) -> str:
    """What the answer is for, if it isn't simply required."""
    words = [
        f"decided by {check.due}" if check.due else "",
        f"recorded only: {check.record_only}" if check.record_only else "",
        f"warns unless {check.warn.text}" if check.warn is not None else "",
        f"a {' or '.join(check.judge)} may judge it" if check.judge else "",
        f"if not: {check.otherwise}" if check.otherwise else "",
    ]
    return "; ".join(word for word in words if word)


def _monitors(made: Plan) -> list[str]:
    return ["## After the run", "", *(f"- {escaped(words)}" for words in made.monitors)] if made.monitors else []


def _guards(guards: Sequence[Guard]) -> list[str]:
    if not guards:
        return []
    return [
        "",
        "**While it runs**",
        "",
        *(f"- {escaped(plan.guard_words(one).removeprefix('while it runs, '))}" for one in guards),
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table without columns in which nothing stands."""
    used = [index for index in range(len(headings)) if any(row[index] for row in rows)]
    return table([headings[index] for index in used], [[row[index] for index in used] for row in rows])


def _as_written(playbook: Playbook, entry: Entry) -> list[str]:
    """The step's own lines of the file, folded away."""
    text = playbook.source[next(iter(playbook.source))].splitlines()
    following = [one.mark.line for one in playbook.entries if one.mark.line > entry.mark.line]
    first = entry.mark.line - 1
    last = min([*(line - 1 for line in following), _end_of_block(text, first)])
    lines = text[first:last]
    while lines and not lines[-1].strip():
        lines.pop()
    return ["", "<details><summary>as written</summary>", "", *fenced("\n".join(lines), "yaml"), "", "</details>"]


def _end_of_block(text: Sequence[str], first: int) -> int:
    """The number of the first line after `first` that is indented less than the step's `- `, or the text's end."""
    depth = len(text[first]) - len(text[first].lstrip())
    for number in range(first + 1, len(text)):
        line = text[number]
        if line.strip() and len(line) - len(line.lstrip()) < depth:
            return number
    return len(text)


# ─── the rest ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _proof(playbook: Playbook) -> list[str]:
    if playbook.success_criteria:
        return _checks("## Success criteria", playbook.success_criteria)
    if playbook.unproven:
        return ["## Success criteria", "", f"None: {escaped(playbook.unproven)}. A run ends as *unproven*."]
    return ["## Success criteria", "", "Those of its steps."]


def _way_back(playbook: Playbook, made: Plan) -> list[str]:
    lines = ["## Taking it back", "", escaped(made.rollback)]
    if playbook.rollback != "none":
        lines += ["", code("runbook rollback RUN --reason '…'")]
    return lines


def _limits(playbook: Playbook) -> list[str]:
    rows = [[code(name), escaped(str(value))] for name, value in _used(playbook, "limits", playbook.limits)]
    return ["## Limits", "", *table(["limit", "value"], rows)] if rows else []


def _used(playbook: Playbook, kind: str, named: Mapping[str, Named]) -> list[tuple[str, Named]]:
    """Without what an included file has for other playbooks."""
    return [(name, one) for name, one in named.items() if name not in playbook.idle.get(kind, ())]


def _inputs(playbook: Playbook) -> list[str]:
    inputs = _used(playbook, "inputs", playbook.inputs)
    rows = [[code(name), one.type, _default(one), escaped(one.help)] for name, one in inputs]
    return ["## Inputs", "", *_table(["input", "type", "default", "what for"], rows)] if rows else []


def _default(one: Input) -> str:
    if one.secret:
        return "secret"
    if one.default is None:
        return "required" if one.required else ""
    must = f" (must be given in {', '.join(one.required_in)})" if one.required_in else ""
    return f"{code(str(one.default)) or 'empty'}{escaped(must)}"


def _queries(playbook: Playbook) -> list[str]:
    """The named queries that its checks and steps use, folded away."""
    lines: list[str] = []
    for name, query in _used(playbook, "queries", playbook.queries):
        for dialect, text in query.texts.items():
            title = f"{code(name)}{f' on {dialect}' if dialect else ''}"
            lines += ["", title, "", *fenced(text.strip(), "sql")]
    if not lines:
        return []
    return ["## Queries", "", "<details><summary>as the database gets them</summary>", *lines, "", "</details>"]
