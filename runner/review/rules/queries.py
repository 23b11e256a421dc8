"""Queries that answer another question than the one that they seem to ask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from runner.review.findings import Severity
from runner.review.parse_tree import Parsed, TreeNode
from runner.review.rule import Hit, rule
from runner.review.sql_texts import Role
from runner.review.subject import LintSubject

_AGGREGATES = frozenset(
    {"count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "string_agg", "array_agg"}
)


@rule("RB301", Severity.WARNING, parsed=True)
def limit_on_aggregate(subject: LintSubject) -> Iterator[Hit]:
    """LIMIT on an aggregate limits nothing.

    The aggregate is one row, computed over all rows; LIMIT then lets that row through. A sample must be taken in a subquery, before
    it is counted.

    Found in::

        queries:
          right: SELECT count(*) AS n FROM public.sessions WHERE country IS NOT NULL LIMIT 1000
        steps:
          - {id: go, type: checkpoint, success_criteria: [{id: enough, check: query, query: right, that: n > 990}]}

    Instead::

        queries:
          right: SELECT count(*) AS n FROM (SELECT country FROM public.sessions ORDER BY md5(id::text) LIMIT 1000) AS s
        steps:
          - {id: go, type: checkpoint, success_criteria: [{id: enough, check: query, query: right, that: n > 990}]}
    """
    for statement, node in subject.find("SelectStmt"):
        one_row = not node.message.group_clause and _aggregates(statement, node)
        if node.message.HasField("limit_count") and one_row:
            why = f"LIMIT limits nothing here: {one_row[0]}() is one row, over all rows"
            yield Hit(statement.mark(one_row_node(statement, node)), why, _SAMPLE, statement.text.step)


_SAMPLE = "take the sample first: FROM (SELECT … ORDER BY md5(key::text) LIMIT n) AS s, or use `check: sample`"


def one_row_node(statement: Parsed, select: TreeNode) -> TreeNode:
    """The aggregate call of a SELECT, for its place."""
    return next(one for one in statement.find("FuncCall") if one.above("SelectStmt") is select and _is_aggregate(one))


def _is_aggregate(node: TreeNode) -> bool:
    message = node.message
    return message.funcname[-1].string.sval in _AGGREGATES and not message.HasField("over")


def _aggregates(statement: Parsed, select: TreeNode) -> list[str]:
    calls = [one for one in statement.find("FuncCall") if one.above("SelectStmt", "SubLink") is select]
    return [one.message.funcname[-1].string.sval for one in calls if _is_aggregate(one)]


@rule("RB302", Severity.WARNING, parsed=True)
def unordered_sample(subject: LintSubject) -> Iterator[Hit]:
    """A sample has no order, or no seed.

    LIMIT without ORDER BY takes the rows that lie first, which is no random sample, and other rows the next time. ORDER BY random()
    and TABLESAMPLE without REPEATABLE give other rows each time, so that nobody can check the figure again.

    Found in::

        steps:
          - id: go
            type: checkpoint
            success_criteria:
              - {id: ten, check: query, query: SELECT id FROM public.sessions LIMIT 10, rows: 10}

    Instead::

        steps:
          - id: go
            type: checkpoint
            success_criteria:
              - {id: ten, check: query, query: "SELECT id FROM public.sessions ORDER BY md5(id::text || 'seed') LIMIT 10", rows: 10}
    """
    for statement, node in subject.find("SelectStmt"):
        if not _takes_some(statement, node):
            continue
        if not node.message.sort_clause:
            yield _unordered(statement, node, "LIMIT without ORDER BY takes the rows that lie first, and is no sample")
        elif _calls_random(statement, node):
            yield _unordered(statement, node, "ORDER BY random() takes other rows each time")
    for statement, node in subject.find("RangeTableSample"):
        if not node.message.HasField("repeatable"):
            yield _unordered(statement, node, "TABLESAMPLE without REPEATABLE takes other rows each time")


def _takes_some(statement: Parsed, select: TreeNode) -> bool:
    """Whether a SELECT takes some of a table's rows by LIMIT."""
    message = select.message
    if not message.HasField("limit_count") or not message.from_clause or _is_one(message.limit_count):
        return False
    return not select.above("UpdateStmt", "DeleteStmt", "SubLink") and not _aggregates(statement, select)


def _unordered(statement: Parsed, node: TreeNode, why: str) -> Hit:
    instead = "write ORDER BY md5(key::text || 'seed'), REPEATABLE (seed), or `check: sample` with its seed"
    return Hit(statement.mark(node), why, instead, statement.text.step)


def _is_one(node: Any) -> bool:
    return node.WhichOneof("node") == "a_const" and node.a_const.ival.ival in (0, 1)


def _calls_random(statement: Parsed, select: TreeNode) -> bool:
    calls = [one for one in statement.find("FuncCall") if one.within("sort_clause", select)]
    return any(one.message.funcname[-1].string.sval == "random" for one in calls)


@rule("RB303", Severity.WARNING, parsed=True)
def compares_with_null(subject: LintSubject) -> Iterator[Hit]:
    """A comparison with NULL is never true.

    `x = NULL` is NULL for every x, also for NULL itself.

    Found in::

        steps:
          - {id: mark, type: sql, text: UPDATE public.sessions SET seen = true WHERE id = 1 AND country = NULL}

    Instead::

        steps:
          - {id: mark, type: sql, text: UPDATE public.sessions SET seen = true WHERE id = 1 AND country IS NULL}
    """
    for statement, null in subject.find("A_Const"):
        node = null.up
        if null.message.isnull and node is not None and _compares(node, "=", "<>", "!=", "<", ">", "<=", ">="):
            sign = _sign(node)
            instead = "write IS NOT NULL" if sign in {"<>", "!="} else "write IS NULL"
            yield Hit(statement.mark(node), f"`{sign} NULL` is never true", instead, statement.text.step)


@rule("RB304", Severity.WARNING, parsed=True)
def nulls_as_mismatches(subject: LintSubject) -> Iterator[Hit]:
    """Two columns are compared with `=` in what is counted, so two NULLs count as different.

    `CASE WHEN a = b THEN 1 ELSE 0 END` counts a row where both are NULL as a mismatch, and `count(*) FILTER (WHERE a <> b)` misses
    a row where one of them is. IS NOT DISTINCT FROM compares NULL as a value.

    Found in::

        queries:
          same: >-
            SELECT sum(CASE WHEN s.asn = i.asn THEN 1 ELSE 0 END) AS n
            FROM a.sessions AS s LEFT JOIN a.inventory AS i USING (ip)
        steps:
          - {id: go, type: checkpoint, success_criteria: [{id: enough, check: query, query: same, that: n > 990}]}

    Instead::

        queries:
          same: >-
            SELECT count(*) FILTER (WHERE s.asn IS NOT DISTINCT FROM i.asn) AS n
            FROM a.sessions AS s LEFT JOIN a.inventory AS i USING (ip)
        steps:
          - {id: go, type: checkpoint, success_criteria: [{id: enough, check: query, query: same, that: n > 990}]}
    """
    for statement, node in subject.find("A_Expr"):
        call = node.above("FuncCall", "SelectStmt")
        summed = call is not None and call.kind == "FuncCall" and _is_aggregate(call)
        counted = summed or node.above("CaseWhen") is not None
        sides = (node.message.lexpr, node.message.rexpr) if counted and _compares(node, "=", "<>", "!=") else ()
        if sides and all(one.WhichOneof("node") == "column_ref" for one in sides):
            left, right = (_column(one) for one in sides)
            word = "IS NOT DISTINCT FROM" if _sign(node) == "=" else "IS DISTINCT FROM"
            why = f"where {left} and {right} are both NULL, `{_sign(node)}` is neither true nor false, and the row is counted wrongly"
            yield Hit(statement.mark(node), why, f"write {left} {word} {right}", statement.text.step)


def _sign(node: TreeNode) -> str:
    names = node.message.name
    return str(names[-1].string.sval) if names else ""


_PLAIN_OPERATOR = 1  # A_Expr_Kind.AEXPR_OP: no BETWEEN, LIKE, IN, nor IS DISTINCT FROM


def _compares(node: TreeNode, *signs: str) -> bool:
    """Whether it is a comparison by one of these signs."""
    return node.kind == "A_Expr" and node.message.kind == _PLAIN_OPERATOR and _sign(node) in signs


def _column(node: Any) -> str:
    return ".".join(one.string.sval or "*" for one in node.column_ref.fields)


_NAIVE = re.compile(r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?$")
TIMELY = re.compile(r"(_at|_time|_ts|_on|date|time|timestamp|created|updated|modified)$")


@rule("RB305", Severity.WARNING, parsed=True)
def naive_time(subject: LintSubject) -> Iterator[Hit]:
    """A time has no zone.

    `'2025-11-06 00:00:00'` is another moment in each session's TimeZone, so the same statement meets other rows for another
    operator.

    Found in::

        steps:
          - {id: mark, type: sql, text: "UPDATE public.sessions SET seen = true WHERE id = 1 AND ended_at > '2025-11-06 00:00:00'"}

    Instead::

        steps:
          - {id: mark, type: sql, text: "UPDATE public.sessions SET seen = true WHERE id = 1 AND ended_at > '2025-11-06 00:00:00+00'"}
    """
    for statement, node in subject.find("A_Const"):
        value = node.message.sval.sval
        if _NAIVE.match(value) and (":" in value or _beside_time(node)):
            instead = f"write the offset: '{value if ':' in value else value + ' 00:00:00'}+00'"
            yield Hit(
                statement.mark(node),
                f"'{value}' has no zone: it is another moment in each session",
                instead,
                statement.text.step,
            )


def _beside_time(node: TreeNode) -> bool:
    """Whether a date is compared with a column that holds a time, by its name."""
    above = node.above("A_Expr")
    sides = (above.message.lexpr, above.message.rexpr) if above is not None else ()
    return any(one.WhichOneof("node") == "column_ref" and TIMELY.search(_column(one)) for one in sides)


@rule("RB306", Severity.WARNING, parsed=True)
def hides_orphans(subject: LintSubject) -> Iterator[Hit]:
    """An inner join leaves out the rows that have no partner, and then the rest is counted.

    A share or a number of right rows over an inner join is of those rows that have a partner. The orphans, which are what a check
    looks for, are neither right nor wrong in it.

    Found in::

        queries:
          right: SELECT count(*) AS total, count(s.asn) AS n FROM a.sessions AS s JOIN a.inventory AS i ON s.ip = i.ip
        steps:
          - {id: go, type: checkpoint, success_criteria: [{id: enough, check: query, query: right, that: n >= total}]}

    Instead::

        queries:
          right: SELECT count(*) AS total, count(i.asn) AS n FROM a.sessions AS s LEFT JOIN a.inventory AS i ON s.ip = i.ip
        steps:
          - {id: go, type: checkpoint, success_criteria: [{id: enough, check: query, query: right, that: n >= total}]}
    """
    for statement in subject.parsed_as(Role.QUERY):
        if not any(one.decides and one.group != "steps" and one.key == "query" for one in statement.text.uses):
            continue
        for select in _inner_joins(statement):
            if len(_aggregates(statement, select)) > 1:
                why = "the inner join leaves out rows without a partner, so the figures are of the others only"
                instead = "write LEFT JOIN, and count the rows without a partner too"
                yield Hit(statement.mark(select), why, instead, statement.text.step)


def _inner_joins(statement: Parsed) -> Iterator[TreeNode]:
    """The SELECTs that join tables so: by JOIN, or by a list of tables with a WHERE."""
    for node in statement.find("JoinExpr"):
        select = node.above("SelectStmt")
        if node.message.jointype in (0, 1) and not node.message.is_natural and select is not None:
            yield select
    for node in statement.find("SelectStmt"):
        tables = [one for one in node.message.from_clause if one.WhichOneof("node") == "range_var"]
        if len(tables) > 1 and node.message.HasField("where_clause"):
            yield node


@rule("RB307", Severity.NOTE, parsed=True)
def unqualified(subject: LintSubject) -> Iterator[Hit]:
    """Tables are named without their schema, and the playbook doesn't say which it is.

    They are looked up in `schema:` (public where nothing is written). Where a table of that name stands in another schema too, a
    reader can't tell which is meant.

    Found in::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}

    Instead::

        schema: public
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    if subject.value("schema") or subject.value("search_path"):
        return
    for statement, node in subject.find("RangeVar", roles=(Role.STATEMENT, Role.REVERT, Role.QUERY)):
        if not node.message.schemaname and node.message.relname not in _local(statement):
            why = f"{node.message.relname} is named without its schema, and no `schema:` says which"
            yield Hit(
                statement.mark(node), why, "write `schema: public`, or the schema's name, once", statement.text.step
            )
            return  # once a playbook: one line mends all


def _local(statement: Parsed) -> set[str]:
    """Names that WITH gives."""
    return {one.message.ctename for one in statement.find("CommonTableExpr")}


@rule("RB308", Severity.WARNING, parsed=True)
def catalogue_of_any_schema(subject: LintSubject) -> Iterator[Hit]:
    """The catalogue is asked without naming a schema.

    A table of the same name in another schema answers too; and information_schema shows only what the role may see, so that no row
    proves nothing. On SQLite it doesn't exist. `check: columns` asks with schema and privileges.

    Found in::

        steps:
          - id: go
            type: checkpoint
            success_criteria:
              - id: there
                check: query
                query: SELECT count(*) AS n FROM information_schema.columns WHERE table_name = 'sessions' AND column_name = 'ip'
                that: n == 1

    Instead::

        steps:
          - id: go
            type: checkpoint
            success_criteria:
              - {id: there, check: columns, table: sessions, has: [ip]}
    """
    for statement, node in subject.find("RangeVar"):
        catalogue = node.message.schemaname == "information_schema"
        if catalogue and not any(_names_a_schema(one) for one in statement.find("ColumnRef")):
            name = f"information_schema.{node.message.relname}"
            why = f"{name} is asked without table_schema: a table of that name in another schema answers too"
            yield Hit(statement.mark(node), why, "use `check: columns`, or add table_schema = '…'", statement.text.step)


def _names_a_schema(column: TreeNode) -> bool:
    """Whether a column with the schema's name stands in a condition."""
    return column.message.fields[-1].string.sval.endswith("_schema") and (
        column.within("where_clause") or column.within("quals")
    )


@rule("RB310", Severity.ERROR, parsed=True)
def unknown_figure(subject: LintSubject) -> Iterator[Hit]:
    """`that:` names a column that the query doesn't have.

    The check can't be answered, and the run stops at it.

    Found in::

        queries:
          left: SELECT count(*) AS n FROM public.sessions
        steps:
          - {id: go, type: checkpoint, success_criteria: [{id: none, check: query, query: left, that: rows_left == 0}]}

    Instead::

        queries:
          left: SELECT count(*) AS rows_left FROM public.sessions
        steps:
          - {id: go, type: checkpoint, success_criteria: [{id: none, check: query, query: left, that: rows_left == 0}]}
    """
    columns: dict[str, set[str] | None] = {}
    for statement in subject.parsed_as(Role.QUERY):
        for use in statement.text.uses:
            if use.key == "query" and use.group != "steps":
                columns[use.name] = _result_columns(statement.root)
    for check in subject.checks:
        known = columns.get(check.id)
        if check.probe is None or not check.probe.open_names or known is None:
            continue
        for name in check.that.names if check.that is not None else ():
            if "." not in name and name not in known and name not in {"rows", "table"}:
                why = f"check {check.id}: the query has no column {name}, it has {', '.join(sorted(known))}"
                yield Hit(check.mark, why, "name the column with AS", check.id)


def _result_columns(select: TreeNode) -> set[str] | None:
    """The names of a query's columns; None where the text doesn't tell."""
    message = select.message
    if select.kind != "SelectStmt" or not message.target_list:
        return None
    found = set()
    for one in message.target_list:
        value, name = one.res_target.val, one.res_target.name
        kind = value.WhichOneof("node")
        if not name and kind == "column_ref":
            last = value.column_ref.fields[-1]
            name = last.string.sval if last.WhichOneof("node") == "string" else ""
        if not name and kind == "func_call":
            name = value.func_call.funcname[-1].string.sval
        if not name:
            return None
        found.add(name)
    return found
