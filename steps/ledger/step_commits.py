"""What each step of a run committed, what it kept for its undo, and how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass

from steps.contract import Look, Question, RunPosition, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger.tables import exists, table


def committed_labels(look: Look, place: RunPosition | None) -> list[str]:
    """The labels that this step has committed, in order; [] outside of a run or where there is no ledger."""
    if place is None or not exists(look):
        return []
    sql = f"""SELECT label FROM {table("step_commit", look.dialect)}
              WHERE run = :run AND step = :step AND action = :action ORDER BY seq"""
    return [row.text("label") for row in look.rows(sql, place_params(place))]


def is_committed(look: Look, place: RunPosition, *, label: str) -> bool:
    """Whether this label is committed."""
    sql = f"""SELECT 1 AS one FROM {table("step_commit", look.dialect)}
              WHERE run = :run AND step = :step AND action = :action AND label = :label"""
    return bool(look.rows(sql, {**place_params(place), "label": label}))


def record_commit(
    dialect: Dialect, place: RunPosition, *, label: str, epoch: int, before: str | None, touched: str | None = None
) -> Question:
    """The INSERT that records one commit of a step; it runs last in the very transaction that it records.

    before: JSON that `revert` will need. touched: JSON of the tables changed (steps.catalog.touched_tables).
    """
    names, values = ("", "") if touched is None else (", touched", ", :touched")
    sql = f"""INSERT INTO {table("step_commit", dialect)} (run, step, action, label, epoch, before{names})
              VALUES (:run, :step, :action, :label, :epoch, :before{values})"""
    more: dict[str, Value] = {} if touched is None else {"touched": touched}
    return sql, {**place_params(place), "label": label, "epoch": epoch, "before": before, **more}


@dataclass(frozen=True)
class Touch:
    """The identity of the tables that one commit changed; text: JSON, written by steps.catalog.touched_tables."""

    run: str
    step: str
    action: str
    text: str


def touches(look: Look, place: RunPosition) -> list[Touch]:
    """The touches of all commits since this step's first commit, of any run, in order."""
    commits = table("step_commit", look.dialect)
    first = f"SELECT min(seq) FROM {commits} WHERE run = :run AND step = :step AND action = 'apply'"
    sql = f"""SELECT run, step, action, touched FROM {commits}
              WHERE touched IS NOT NULL AND seq >= ({first}) ORDER BY seq"""
    rows = look.rows(sql, {"run": place.run, "step": place.step})
    return [Touch(r.text("run"), r.text("step"), r.text("action"), r.text("touched")) for r in rows]


def remembered(look: Look, *, run: str, step: str, last: bool = False) -> str | None:
    """The first (or last) document that `apply` kept for `revert`, as JSON; None where it kept none."""
    sql = f"""SELECT before FROM {table("step_commit", look.dialect)} WHERE run = :run AND step = :step AND action = 'apply'
              AND before IS NOT NULL ORDER BY seq {"DESC" if last else "ASC"} LIMIT 1"""
    rows = look.rows(sql, {"run": run, "step": step})
    return rows[0].text("before") if rows else None


def acted(look: Look, *, run: str, action: str) -> set[str]:
    """The steps of a run that have committed anything under this action ("apply" or "revert")."""
    sql = f"SELECT DISTINCT step FROM {table('step_commit', look.dialect)} WHERE run = :run AND action = :action"
    return {row.text("step") for row in look.rows(sql, {"run": run, "action": action})}


def dropped_by(look: Look, what: str) -> str | None:
    """The latest run that dropped `what` and hasn't restored it; None where no run on this target did.

    Steps that drop something remember it as `gone`.
    """
    sql = f"""SELECT run, step FROM {table("step_commit", look.dialect)} WHERE action = 'apply' AND before IS NOT NULL
              AND {"strpos" if look.dialect is Dialect.POSTGRESQL else "instr"}(before, :gone) > 0 ORDER BY seq DESC LIMIT 1"""
    rows = look.rows(sql, {"gone": f'"gone":{json.dumps(what, ensure_ascii=False)}'})
    if not rows:
        return None
    run, step = rows[0].text("run"), rows[0].text("step")
    return run if step in standing(look, run) else None


# ─── outcomes of steps, each with the trail's chain head at that moment ─────────────────────────────────────────────────
def end_step(work: Work, place: RunPosition, *, state: str, results: str, head: str, length: int) -> None:
    """Record a step's outcome and the trail's chain head, out of reach of whoever can rewrite the trail's file."""
    sql = f"""INSERT INTO {table("step", work.dialect)} (run, step, action, state, results, trail_head, trail_length)
              VALUES (:run, :step, :action, :state, :results, :head, :length)
              ON CONFLICT (run, step, action) DO UPDATE SET state = excluded.state, results = excluded.results,
              trail_head = excluded.trail_head, trail_length = excluded.trail_length"""
    work.execute(sql, {**place_params(place), "state": state, "results": results, "head": head, "length": length})


@dataclass(frozen=True)
class StepRow:
    """A step's recorded outcome; results is a JSON text."""

    step: str
    action: str
    state: str
    results: str
    age_s: float = 0.0


def step_rows(look: Look, run: str) -> list[StepRow]:
    """The outcomes of a run's steps, in the order in which they ended (the trail only grows)."""
    age = (
        "extract(epoch FROM clock_timestamp() - at)"
        if look.dialect is Dialect.POSTGRESQL
        else "(julianday('now') - julianday(at)) * 86400.0"
    )
    sql = f"""SELECT step, action, state, results, {age} AS age_s FROM {table("step", look.dialect)}
              WHERE run = :run ORDER BY trail_length"""
    return [
        StepRow(r.text("step"), r.text("action"), r.text("state"), r.text("results"), r.number("age_s"))
        for r in look.rows(sql, {"run": run})
    ]


def standing(look: Look, run: str) -> set[str]:
    """The steps of a run whose change stands: they have commits, and are not completely reverted."""
    back = {row.step for row in step_rows(look, run) if row.action == "revert" and row.state == "reverted"}
    return acted(look, run=run, action="apply") - back


def lost(look: Look, run: str) -> set[str]:
    """The steps recorded as done without any commit: maintenance outside a transaction, or deleted ledger rows."""
    rows = step_rows(look, run)
    back = {row.step for row in rows if row.action == "revert" and row.state == "reverted"}
    done = {row.step for row in rows if row.action == "apply" and row.state == "done"}
    return done - back - acted(look, run=run, action="apply")


def place_params(place: RunPosition) -> dict[str, Value]:
    """The parameters by which a step's own rows are found: run, step, action."""
    return {"run": place.run, "step": place.step, "action": place.action}
