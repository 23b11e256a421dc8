"""Reading queries for probes and steps: single SELECTs, their plans, and rows hidden by row-level security."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from steps.contract import (
    INSUFFICIENT_PRIVILEGE,
    NOTHING,
    DatabaseFault,
    Look,
    NamedQuery,
    Params,
    Query,
    Unknown,
    cutting,
)
from steps.contract.dialect import Dialect
from steps.sql.dialect import first_words, is_single_select
from steps.sql.session_statements import void

_SELECTS = ("SELECT", "WITH", "VALUES", "TABLE")  # not SHOW, EXPLAIN or PRAGMA, which can't be subqueries


def _single(query: Query) -> Query:
    for dialect, text in query.texts.items():
        reasons = [_why_not(text, one) for one in ([Dialect(dialect)] if dialect else Dialect)]
        if all(reasons):  # a text for both may be meant for one of them
            raise ValueError(f"cannot use {query.name or cutting.on_one_line(text, 60)!r} as a query: {reasons[0]}")
    return query


def _why_not(text: str, dialect: Dialect) -> str | None:
    reason = is_single_select(text, dialect)
    if reason is None and first_words(text, 1, dialect=dialect)[:1] not in [(word,) for word in _SELECTS]:
        return "it must be a SELECT"
    return reason or _acts_on_a_session(text, dialect)


def _acts_on_a_session(text: str, dialect: Dialect) -> str | None:
    """Why the query acts on its session: a lock or setting outlives the read that makes it, or is gone with it."""
    found = void(text, dialect)
    return None if found is None else f"it has {found.what}: {found.why}"


ReadQuery = Annotated[NamedQuery, AfterValidator(_single)]
"""A named query, or SQL in place, that is refused unless it is a single SELECT."""


def text_of(query: Query, look: Look) -> str:
    """The query's text for this database, for use as a subquery; it ends with a line end, which closes a last comment."""
    return query.text(look.dialect).strip().rstrip(";").rstrip() + "\n"


# ─── plans ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class QueryPlan:
    """A query's plan. nodes: in PostgreSQL's terms on both databases; cost: in PostgreSQL's units, None on SQLite."""

    nodes: tuple[str, ...]
    indexes: tuple[str, ...]
    tables: tuple[str, ...]
    cost: float | None
    text: str


def explain(look: Look, sql: str, params: Params = NOTHING) -> QueryPlan:
    """The plan of a query, which is not run."""
    if look.dialect is Dialect.SQLITE:
        return _sqlite_plan([row.text("detail") for row in look.rows("EXPLAIN QUERY PLAN " + sql, params)])
    found = look.row("EXPLAIN (VERBOSE, FORMAT JSON) " + sql, params)["QUERY PLAN"]
    tree = json.loads(found) if isinstance(found, str) else found
    root = _node(tree[0] if isinstance(tree, list) else tree)
    top = _node(root["Plan"])
    nodes = list(_walk(top))
    lines = look.rows("EXPLAIN " + sql, params)
    return QueryPlan(
        nodes=tuple(str(node["Node Type"]) for node in nodes),
        indexes=_unique(str(node["Index Name"]) for node in nodes if "Index Name" in node),
        tables=_unique(f"{node.get('Schema')}.{node['Relation Name']}" for node in nodes if "Relation Name" in node),
        cost=float(str(top["Total Cost"])),
        text="\n".join(line.text("QUERY PLAN") for line in lines),
    )


@dataclass(frozen=True)
class Execution:
    """One execution of a query: its time in ms, rows, pages found in the server's buffers or read into them, and its plan."""

    ms: float | None = None
    rows: int | None = None
    hit_pages: int | None = None
    read_pages: int | None = None
    text: str = ""


NOT_RUN = Execution()


def analyze(look: Look, sql: str, params: Params = NOTHING) -> Execution:
    """Run a query once, read-only, and measure it: EXPLAIN (ANALYZE, BUFFERS); on SQLite a count of its rows, timed."""
    if look.dialect is Dialect.SQLITE:
        began = time.perf_counter()
        rows = look.row(f"SELECT count(*) AS n FROM (\n{sql}) AS counted", params).integer("n")
        return Execution(ms=round((time.perf_counter() - began) * 1000, 3), rows=rows)
    found = look.row("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql, params)["QUERY PLAN"]
    tree = json.loads(found) if isinstance(found, str) else found
    root = _node(tree[0] if isinstance(tree, list) else tree)
    top = _node(root["Plan"])
    return Execution(
        ms=round(float(str(root["Execution Time"])), 3),
        rows=int(float(str(top["Actual Rows"]))),
        hit_pages=_pages(top, "Hit"),
        read_pages=_pages(top, "Read"),
        text="\n".join(_executed(top)),
    )


def _pages(node: Mapping[str, object], how: str) -> int:
    """Shared, local and temporary pages; a node's figures include those of the nodes below it."""
    return sum(int(str(node.get(f"{kind} {how} Blocks", 0))) for kind in ("Shared", "Local", "Temp"))


def _executed(node: Mapping[str, object], depth: int = 0) -> Iterator[str]:
    """A line for each node: what it is, on what, and what it took."""
    on = " ".join(
        f"{word} {node[key]}" for word, key in (("using", "Index Name"), ("on", "Relation Name")) if key in node
    )
    took = f"rows={node['Actual Rows']} loops={node['Actual Loops']} ms={node.get('Actual Total Time')}"
    pages = f"hit={_pages(node, 'Hit')} read={_pages(node, 'Read')}"
    yield f"{'  ' * depth}{node['Node Type']}{f' {on}' if on else ''} ({took} {pages})"
    below = node.get("Plans")
    for one in below if isinstance(below, list) else []:
        yield from _executed(_node(one), depth + 1)


def _node(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _walk(node: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    yield node
    below = node.get("Plans")
    for one in below if isinstance(below, list) else []:
        yield from _walk(_node(one))


def _unique(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _sqlite_plan(details: list[str]) -> QueryPlan:
    scans = [one for one in details if one.startswith(("SCAN ", "SEARCH "))]
    return QueryPlan(
        nodes=tuple(_word(one) for one in details),
        indexes=_unique(_index_of(one) for one in scans if " INDEX " in one),
        tables=_unique(one.split()[1] for one in scans),
        cost=None,
        text="\n".join(details),
    )


def _word(detail: str) -> str:
    """A line of SQLite's plan in PostgreSQL's terms, so that `lacks: [Seq Scan]` works on both."""
    if detail.startswith(("SCAN ", "SEARCH ")):
        if " USING COVERING INDEX " in detail:
            return "Index Only Scan"
        return "Index Scan" if " USING " in detail else "Seq Scan"
    return "Sort" if detail.startswith("USE TEMP B-TREE") else detail


def _index_of(detail: str) -> str:
    return detail.split(" INDEX ", 1)[1].split(" (", 1)[0]


# ─── privileges ─────────────────────────────────────────────────────────────────────────────────────────────────────
def require_all_rows(look: Look, sql: str, params: Params = NOTHING) -> None:
    """Raises Unknown where row-level security may hide rows of this query from this role.

    Each session has row_security off, with which the database refuses such a query instead of filtering it; EXPLAIN suffices.
    """
    if look.dialect is Dialect.SQLITE or not _filtered(look):
        return
    try:
        look.rows("EXPLAIN " + sql, params)
    except DatabaseFault as fault:
        if fault.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        raise Unknown(
            f"{fault}: rows may be hidden from this role; ask for BYPASSRLS, or for a policy that lets it see all rows"
        ) from fault


def _filtered(look: Look) -> bool:
    """Whether any table in the database filters rows for this role; if not, the EXPLAIN can be saved."""
    sql = """SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c
                            WHERE c.relrowsecurity AND pg_catalog.row_security_active(c.oid)) AS some"""
    return look.row(sql).flag("some")


def has_role(look: Look, role: str) -> bool:
    """Whether the current role has the privileges of a predefined role; a superuser always has."""
    sql = "SELECT pg_catalog.pg_has_role(current_user, CAST(:role AS name), 'USAGE') AS ok"
    return look.row(sql, {"role": role}).flag("ok")
