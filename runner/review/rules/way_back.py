"""What can't be taken back, and ways back that take back something else."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.plan.plan import taking_back
from runner.review.findings import Severity
from runner.review.parse_tree import Parsed, TreeNode, nodes_below
from runner.review.rule import Hit, rule
from runner.review.rules.queries import TIMELY
from runner.review.sql_texts import Role
from runner.review.subject import LintSubject
from steps.contract import Gate, able


@rule("RB102", Severity.WARNING)
def no_way_back(subject: LintSubject) -> Iterator[Hit]:
    """Nothing of the playbook can be taken back.

    Each of its changes is one way, and no `rollback: {none: the reason}` says that this was weighed.

    Found in::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}

    Instead::

        steps:
          - id: mark
            type: sql
            text: UPDATE sessions SET seen = true WHERE id = 1 AND NOT seen
            revert: UPDATE sessions SET seen = false WHERE id = 1
    """
    playbook = subject.playbook
    lasting = [entry for entry in playbook.entries if entry.step.changes and entry.step.lasting]
    if lasting and playbook.rollback != "none" and all(entry.id in subject.one_way for entry in lasting):
        why = f"nothing of it can be taken back: {lasting[0].id}: {subject.one_way[lasting[0].id]}"
        instead = "write `revert:` where there is one, or `rollback: {none: the reason}`"
        yield Hit(lasting[0].mark, why, instead)


@rule("RB103", Severity.WARNING)
def left_out_of_rollback(subject: LintSubject) -> Iterator[Hit]:
    """`rollback:` leaves a step standing that could be taken back.

    A run that is taken back then ends as rolled back in part, with exit code 9.

    Found in::

        steps:
          - {id: one, type: add_column, column: sessions.country, of_type: text}
          - {id: two, type: add_column, column: sessions.city, of_type: text}
        rollback: [two]

    Instead::

        steps:
          - {id: one, type: add_column, column: sessions.country, of_type: text}
          - {id: two, type: add_column, column: sessions.city, of_type: text}
        rollback: [two, one]
    """
    listed = subject.playbook.rollback_steps
    for entry in subject.playbook.entries if listed else ():
        if entry.id not in listed and taking_back(entry).startswith("yes"):
            why = f"`rollback:` leaves {entry.id} standing, which can be taken back"
            yield Hit(subject.mark("rollback"), why, f"write {entry.id} in the list, or `rollback: reverse`", entry.id)


@rule("RB104", Severity.WARNING)
def one_way_before_a_gate(subject: LintSubject) -> Iterator[Hit]:
    """A step that can't be taken back stands before the last gate.

    A gate that says no behind it stops a run that can't go back either. What is one way belongs behind the last decision.

    Found in::

        steps:
          - {id: drop, type: sql, text: DROP TABLE old_sessions}
          - {id: go, type: checkpoint, approval: {roles: dba}}
          - {id: name, type: rename_column, column: sessions.ip, to: source_ip}

    Instead::

        steps:
          - {id: name, type: rename_column, column: sessions.ip, to: source_ip}
          - {id: go, type: checkpoint, approval: {roles: dba}}
          - {id: drop, type: sql, text: DROP TABLE old_sessions}
    """
    entries = subject.playbook.entries
    gates = [n for n, entry in enumerate(entries) if able(entry.step, Gate)]
    for n, entry in enumerate(entries):
        if (reason := subject.one_way.get(entry.id)) and gates and n < gates[-1]:
            why = f"step {entry.id} can't be taken back ({reason}), and the gate {entries[gates[-1]].id} decides only after it"
            yield Hit(entry.mark, why, f"move it behind {entries[gates[-1]].id}, or give it a way back", entry.id)


_TIME = re.compile(r"^\d{4}-\d\d-\d\d")


@rule("RB105", Severity.WARNING, parsed=True)
def rollback_of_other_rows(subject: LintSubject) -> Iterator[Hit]:
    """A way back can't tell the run's rows from others.

    Rows found by a time are those that anybody changed since; and where the time is copied from elsewhere, the run's own rows are
    not among them. A column that the run didn't write holds what was there before. `backfill` remembers each row that it wrote, and
    takes back exactly those that nobody has changed since.

    Found in::

        steps:
          - id: fill
            type: sql
            text: UPDATE sessions SET country = 'DE' WHERE country IS NULL AND id = 7
            revert: UPDATE sessions SET country = NULL, source_ip = NULL WHERE enriched_at > '2025-11-06 00:00:00+00'

    Instead::

        steps:
          - id: fill
            type: sql
            text: UPDATE sessions SET country = 'DE' WHERE country IS NULL AND id = 7
            revert: UPDATE sessions SET country = NULL WHERE country = 'DE' AND id = 7
    """
    forward: dict[str, set[str]] = {}
    for statement, node in subject.find("UpdateStmt", roles=(Role.STATEMENT,)):
        forward.setdefault(statement.text.step, set()).update(_written(node))
    for statement, node in subject.find("UpdateStmt", "DeleteStmt", roles=(Role.REVERT, Role.STATEMENT)):
        back = statement.text.role is Role.REVERT
        if (back or _clears(node)) and _only_by_time(statement, node):
            yield _found(statement, node, "finds its rows by a time alone: others' rows too, and not all of its own")
        more = sorted(_written(node) - forward.get(statement.text.step, set())) if back else []
        if more and forward.get(statement.text.step):
            yield _found(statement, node, f"also writes {', '.join(more)}, which the step didn't change")


def _found(statement: Parsed, node: TreeNode, what: str) -> Hit:
    words = "the way back" if statement.text.role is Role.REVERT else "the statement, which takes values away,"
    instead = "let `type: backfill` write and `rollback: reverse` take back, or name the rows by key and written value"
    return Hit(statement.mark(node), f"{words} {what}", instead, statement.text.step)


def _written(node: TreeNode) -> set[str]:
    return {one.res_target.name for one in node.message.target_list} if node.kind == "UpdateStmt" else set()


def _clears(node: TreeNode) -> bool:
    """Whether an UPDATE only sets columns to NULL."""
    values = [one.res_target.val for one in node.message.target_list] if node.kind == "UpdateStmt" else []
    return bool(values) and all(one.a_const.isnull for one in values)


def _only_by_time(statement: Parsed, update: TreeNode) -> bool:
    """Whether every comparison of the WHERE is of a time: by the column's name, or by the text of a time."""
    compared = [
        one
        for one in statement.find("A_Expr")
        if one.above("UpdateStmt", "DeleteStmt", "A_Expr") is update and one.within("where_clause", update)
    ]
    return bool(compared) and all(any(map(_tells_a_time, nodes_below(one.message).items())) for one in compared)


def _tells_a_time(nodes: tuple[str, list[TreeNode]]) -> bool:
    kind, found = nodes
    if kind == "ColumnRef":
        return any(TIMELY.search(one.message.fields[-1].string.sval) for one in found)
    return kind == "A_Const" and any(_TIME.match(one.message.sval.sval) for one in found)
