"""Statements that change rows: all of them at once, an unknown number of them, or by a page that moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.review import bounded
from runner.review.effects import has_option, name_of
from runner.review.findings import Severity
from runner.review.parse_tree import Parsed, TreeNode
from runner.review.rule import Hit, rule
from runner.review.sql_texts import Role
from runner.review.subject import LintSubject

_WRITES = ("UpdateStmt", "DeleteStmt", "InsertStmt", "MergeStmt")
_SENT = (Role.STATEMENT, Role.REVERT)


@rule("RB202", Severity.WARNING, parsed=True)
def whole_table(subject: LintSubject) -> Iterator[Hit]:
    """UPDATE or DELETE without WHERE changes every row.

    As the statement of a step it is refused unless the step says `whole_table: true`; within WITH, or as a way back, only this rule
    sees it. On a large table it holds locks for minutes, doubles the table and fills the WAL.

    Found in::

        steps:
          - {id: clear, type: sql, text: UPDATE public.sessions SET country = NULL, whole_table: true}

    Instead::

        steps:
          - {id: clear, type: sql, text: UPDATE public.sessions SET country = NULL WHERE id BETWEEN 1 AND 1000}
    """
    for statement, node in subject.find("UpdateStmt", "DeleteStmt", roles=_SENT):
        if not node.message.HasField("where_clause"):
            table = name_of(node.message.relation)
            why = f"{_verb(node)} without WHERE changes every row of {table} in one transaction"
            yield Hit(statement.mark(node), why, _batched(node, table), statement.text.step)


@rule("RB203", Severity.WARNING, parsed=True)
def unbounded(subject: LintSubject) -> Iterator[Hit]:
    """One statement changes as many rows as it finds.

    Its WHERE names no key and no range of keys. On a large table the transaction takes minutes: others wait for its rows, dead rows
    can't be removed meanwhile, and standbys fall behind. `backfill` does the same in batches of a quarter of a second, can be
    stopped, resumed and taken back, and visits each row once.

    Found in::

        steps:
          - id: fill
            type: sql
            text: UPDATE sessions SET country = a.country FROM addresses AS a WHERE a.ip = sessions.ip AND sessions.country IS NULL

    Instead::

        steps:
          - id: fill
            type: backfill
            table: sessions
            source: SELECT ip, country FROM addresses
            match: source.ip = target.ip
            fill: [country]
    """
    for statement, node in subject.find("UpdateStmt", "DeleteStmt", roles=_SENT):
        if node.message.HasField("where_clause") and not bounded.names_its_rows(node.message):
            table = name_of(node.message.relation)
            why = f"{_verb(node)} of as many rows of {table} as its WHERE finds, in one transaction"
            yield Hit(statement.mark(node), why, _batched(node, table), statement.text.step)
    for statement, node in subject.find("MergeStmt", roles=_SENT):
        if not bounded.has_few_rows(node.message.source_relation):
            table = name_of(node.message.relation)
            why = f"MERGE changes as many rows of {table} as its source has, in one transaction"
            instead = f"use {{type: backfill, table: {table}, …}} for the rows that are there, fill_table for new ones"
            yield Hit(statement.mark(node), why, instead, statement.text.step)


def _verb(node: TreeNode) -> str:
    return node.kind.removesuffix("Stmt").upper()


def _batched(node: TreeNode, table: str) -> str:
    if node.kind != "UpdateStmt":
        return f"delete by ranges of the key of {table}, one statement a range"
    columns = ", ".join(dict.fromkeys(one.res_target.name for one in node.message.target_list))
    return f"use {{type: backfill, table: {table}, source: SELECT …, match: source.… = target.…, fill: [{columns}]}}"


@rule("RB204", Severity.WARNING, parsed=True)
def explains_by_doing(subject: LintSubject) -> Iterator[Hit]:
    """EXPLAIN ANALYZE runs the statement.

    The rows are changed, and only the plan is shown.

    Found in::

        steps:
          - {id: look, type: sql, text: EXPLAIN ANALYZE DELETE FROM public.sessions WHERE id = 1}

    Instead::

        steps:
          - {id: look, type: sql, text: EXPLAIN DELETE FROM public.sessions WHERE id = 1}
    """
    for statement, node in subject.find("ExplainStmt"):
        written = next(statement.find(*_WRITES), None)
        if written is not None and has_option(statement, "analyze"):
            why = f"EXPLAIN ANALYZE runs the {_verb(written)}, and its rows are changed"
            instead = "write EXPLAIN without ANALYZE, or `check: trial`, which rolls back"
            yield Hit(statement.mark(node), why, instead, statement.text.step)


@rule("RB205", Severity.WARNING, parsed=True)
def pages_that_move(subject: LintSubject) -> Iterator[Hit]:
    """Rows are paged by OFFSET, by ctid, or by what is left of them.

    OFFSET counts rows that others insert and delete meanwhile, so rows are skipped or met twice; a ctid changes with each update of
    its row; and `WHERE … IS NULL LIMIT n` selects rows that can never be filled again and again: the loop never ends. A cursor on a
    key visits each row once.

    Found in::

        steps:
          - id: fill
            type: sql
            text: >-
              UPDATE sessions SET country = 'DE' WHERE id = ANY (SELECT id FROM sessions WHERE country IS NULL LIMIT 1000)

    Instead::

        steps:
          - id: fill
            type: backfill
            table: sessions
            source: SELECT ip, country FROM addresses
            match: source.ip = target.ip
            fill: [country]
    """
    for statement, node in subject.find("SelectStmt"):
        message = node.message
        if message.HasField("limit_offset") and not _is_zero(message.limit_offset):
            yield _page(statement, node, "OFFSET counts rows that others insert and delete meanwhile")
        elif message.HasField("limit_count") and node.above(*_WRITES) and not message.sort_clause:
            yield _page(statement, node, "LIMIT without ORDER BY takes any rows, also those that it took before")
    for statement, node in subject.find("ColumnRef"):
        fields = [one.string.sval for one in node.message.fields if one.WhichOneof("node") == "string"]
        if fields[-1:] == ["ctid"] and statement.text.role in (*_SENT, Role.CONDITION):
            yield _page(statement, node, "a ctid is another one after each update of its row")


def _page(statement: Parsed, node: TreeNode, why: str) -> Hit:
    return Hit(statement.mark(node), why, "page by key: WHERE key > :last ORDER BY key LIMIT n", statement.text.step)


def _is_zero(node: Any) -> bool:
    return bool(
        node.WhichOneof("node") == "a_const" and node.a_const.ival.ival == 0 and not node.a_const.HasField("sval")
    )
