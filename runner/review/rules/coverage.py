"""Figures that come true by construction, cost more than they tell, or show what isn't theirs to show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from runner.review.findings import Severity
from runner.review.parse_tree import Parsed, TreeNode
from runner.review.rule import Hit, rule
from runner.review.sql_texts import Role
from runner.review.subject import LintSubject
from steps.contract import Query


@rule("RB113", Severity.WARNING, parsed=True)
def sentinel_counts(subject: LintSubject) -> Iterator[Hit]:
    """A placeholder counts as coverage.

    A statement or source writes a fixed text, such as 'XX', where nothing is known, and a check counts the column's values that
    aren't NULL: each unknown row then counts as filled, and the criterion comes true by construction.

    Found in::

        queries:
          coverage: SELECT count(country) AS covered, count(*) AS total FROM public.sessions
        steps:
          - id: fill
            type: backfill
            table: sessions
            source: SELECT ip, coalesce(country, 'XX') AS country FROM public.addresses
            match: source.ip = target.ip
            fill: [country]
            success_criteria: [{id: enough, check: query, query: coverage, that: covered == total}]

    Instead::

        queries:
          coverage: SELECT count(nullif(country, 'XX')) AS covered, count(*) AS total FROM public.sessions
        steps:
          - id: fill
            type: backfill
            table: sessions
            source: SELECT ip, nullif(country, 'XX') AS country FROM public.addresses
            match: source.ip = target.ip
            fill: [country]
            success_criteria: [{id: enough, check: query, query: coverage, that: covered == total}]
    """
    placeholders = dict(one for statement in subject.parsed for one in _placeholders(statement))
    if not placeholders:
        return
    for statement in subject.parsed_as(Role.QUERY, Role.CONDITION):
        if not any(one.group != "steps" for one in statement.text.uses):
            continue
        for node in statement.find("ColumnRef"):
            column = node.message.fields[-1].string.sval
            if column in placeholders and _counts(node) and f"'{placeholders[column]}'" not in statement.sql:
                value = placeholders[column]
                why = f"{column} counts as filled where it holds '{value}', which this playbook writes for what it doesn't know"
                yield Hit(
                    statement.mark(node),
                    why,
                    f"count nullif({column}, '{value}'), or leave it NULL",
                    statement.text.step,
                )


def _counts(node: TreeNode) -> bool:
    """Whether a column stands as count(column) or column IS NOT NULL."""
    above = node.up
    if above is None:
        return False
    if above.kind == "FuncCall":
        return bool(above.message.funcname[-1].string.sval == "count")
    return above.kind == "NullTest" and above.message.nulltesttype == 2  # IS NOT NULL


def _placeholders(statement: Parsed) -> Iterator[tuple[str, str]]:
    """Column → the text that is written where a value is missing: coalesce(…, 'XX'), CASE … ELSE 'XX', or the text itself."""
    writes = statement.text.role is Role.STATEMENT or any(one.group == "steps" for one in statement.text.uses)
    for node in statement.find("ResTarget") if writes else ():
        name, value = node.message.name, _fallback(node.message.val)
        if name and value and (node.field == "target_list"):
            yield name, value


def _fallback(value: Any) -> str:
    kind = value.WhichOneof("node")
    if kind == "type_cast":
        return _fallback(value.type_cast.arg)
    if kind == "coalesce_expr":
        return _fallback(value.coalesce_expr.args[-1])
    if kind == "case_expr" and value.case_expr.HasField("defresult"):
        return _fallback(value.case_expr.defresult)
    text = str(value.a_const.sval.sval) if kind == "a_const" else ""
    return text if len(text) <= 12 else ""


_PERSONAL = re.compile(r"(?i)(e?mail|phone|passw|secret|token|address|birth|iban|card|name$|ssn|salary|(^|_)ip$)")
_WIDE = 8  # columns that a reviewer can still take in, and that a report should hold


@rule("RB309", Severity.WARNING)
def shows_others_data(subject: LintSubject) -> Iterator[Hit]:
    """A check shows wide rows, or columns that look personal.

    What `show:` names is printed, and stays in the trail and in reports, which are sent around. A figure proves as much.

    Found in::

        steps:
          - id: go
            type: checkpoint
            success_criteria:
              - {id: some, check: query, query: SELECT * FROM public.customers WHERE id < 9, show: [id, email], rows: 8}

    Instead::

        steps:
          - id: go
            type: checkpoint
            success_criteria:
              - {id: some, check: query, query: SELECT * FROM public.customers WHERE id < 9, show: [id, country], rows: 8}
    """
    for check in subject.checks:
        shown = getattr(check.probe, "show", ())
        personal = [one for one in shown if isinstance(one, str) and _PERSONAL.search(one)]
        if len(shown) > _WIDE:
            yield Hit(
                check.mark,
                f"{len(shown)} columns are shown, and stay in trail and reports",
                "show what decides",
                check.id,
            )
        elif personal:
            why = f"{', '.join(personal)} of others is shown, and stays in trail and reports"
            yield Hit(check.mark, why, "show a count or the keys, or allow it here with the reason", check.id)


_FULL_COUNT = re.compile(r"(?is)^\s*select\b(?=.*\b(?:count|sum|avg)\s*\()(?!.*\bwhere\b)")


@rule("RB311", Severity.WARNING)
def guard_counts_a_table(subject: LintSubject) -> Iterator[Hit]:
    """A guard counts a whole table, again and again.

    Each sample reads every row. On 1.7 million rows a count takes a second, and a sample every 5 s keeps a quarter of a core busy for
    the whole run. The step's own figures cost nothing: `done`, `total`, and what a step in batches tells.

    Found in::

        steps:
          - id: mark
            type: sql
            text: UPDATE sessions SET seen = true WHERE id = 1
            guards:
              - {id: progress, check: rows, table: sessions, where: seen, that: rows >= 0, else: warn}

    Instead::

        steps:
          - id: mark
            type: sql
            text: UPDATE sessions SET seen = true WHERE id = 1
            guards:
              - {id: progress, that: done >= 0, else: warn}
    """
    for entry in subject.playbook.entries:
        for guard in entry.guards:
            probe = guard.check.probe
            table, query = getattr(probe, "table", None), getattr(probe, "query", None)
            counts = probe is not None and set(type(probe).Result.model_fields) == {"rows"}
            full = isinstance(query, Query) and any(_FULL_COUNT.search(one) for one in query.texts.values())
            if counts or full:
                name = table or (query.name if isinstance(query, Query) else "") or "a table"
                why = f"the guard {guard.check.id} counts {name} at each sample, every {guard.every:g} s"
                instead = "ask the step's own figures (done, total), or `check: table`, which counts nothing"
                yield Hit(guard.check.mark, why, instead, guard.check.id)
