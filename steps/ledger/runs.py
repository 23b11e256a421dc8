"""The runs on this target, as recorded in the target itself: the authority on what happened to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from steps.contract import Look, Row, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger.step_commits import lost, standing
from steps.ledger.tables import now_sql, table


@dataclass(frozen=True)
class RunRow:
    """A run as recorded in the target. identity, inputs, steps and figures are JSON texts."""

    run: str
    playbook: str
    digest: str
    approval_digest: str
    kind: str
    state: str
    target: str
    identity: str
    inputs: str
    operator: str
    host: str
    steps: str
    source: str
    figures: str
    trail_head: str
    trail_length: int
    removes: str = ""  # the playbooks whose effect it takes away, between blanks
    age_s: float = 0.0  # since its end, or its start where it hasn't ended, by the server's clock
    rolled_back: bool = False
    going_back: bool = False  # it succeeded, and a rollback of it has committed something but has not completed
    removed_by: str = ""  # a later run that has begun to take away what it made


_COLUMNS = (
    "run, playbook, digest, approval_digest, kind, state, target, identity, inputs, operator, host, steps, source, figures, "
    "trail_head, trail_length, removes"
)


def in_column(playbooks: Iterable[str]) -> str:
    """Names of playbooks as the column `removes` has them: each between blanks, so that no name is found within another."""
    names = " ".join(playbooks)
    return f" {names} " if names else ""


def add_run(work: Work, row: RunRow) -> None:
    """Record a run that starts."""
    names = [name.strip() for name in _COLUMNS.split(",")]
    sql = (
        f"""INSERT INTO {table("run", work.dialect)} ({_COLUMNS}) VALUES ({", ".join(":" + name for name in names)})"""
    )
    work.execute(sql, {name: cast("Value", getattr(row, name)) for name in names})


def end_run(work: Work, *, run: str, state: str, figures: str, head: str, length: int) -> None:
    """Record a run's state as its process ends: succeeded, failed, waiting …"""
    now = now_sql(work.dialect)
    sql = f"""UPDATE {table("run", work.dialect)} SET state = :state, figures = :figures, trail_head = :head,
              trail_length = :length, ended_at = {now},
              rolled_back_at = CASE WHEN :gone = 1 THEN {now} ELSE rolled_back_at END WHERE run = :run"""
    gone = 1 if state == "rolled_back" else 0
    work.execute(sql, {"run": run, "state": state, "figures": figures, "head": head, "length": length, "gone": gone})


def take_up_run(work: Work, *, run: str, head: str, length: int) -> None:
    """Record that a process continues the run, forwards or backwards: its former end state no longer holds."""
    sql = f"""UPDATE {table("run", work.dialect)} SET state = 'running', trail_head = :head, trail_length = :length
              WHERE run = :run"""
    work.execute(sql, {"run": run, "head": head, "length": length})


def change_run(work: Work, row: RunRow) -> None:
    """Record the playbook that a run follows from here on, after a person has accepted a changed one."""
    names = ("digest", "approval_digest", "steps", "source", "trail_head", "trail_length")
    sql = f"UPDATE {table('run', work.dialect)} SET {', '.join(f'{name} = :{name}' for name in names)} WHERE run = :run"
    work.execute(sql, {name: cast("Value", getattr(row, name)) for name in ("run", *names)})


def find_run(look: Look, run: str) -> RunRow | None:
    """The run with this id, None where there is none."""
    rows = _runs(look, where="run = :run", params={"run": run})
    return rows[0] if rows else None


def latest_runs(look: Look, *, playbook: str) -> list[RunRow]:
    """The runs of a playbook on this target, newest first."""
    return _runs(look, where="playbook = :playbook", params={"playbook": playbook})


def all_runs(look: Look) -> list[RunRow]:
    """Every run on this target, newest first."""
    return _runs(look, where="1 = 1", params={})


def playbooks(look: Look) -> list[str]:
    """The names of the playbooks that have run on this target."""
    rows = look.rows(f"SELECT DISTINCT playbook FROM {table('run', look.dialect)} ORDER BY playbook")
    return [row.text("playbook") for row in rows]


def ended_at(look: Look, run: str) -> int:
    """When the run ended (began, where it hasn't), in whole seconds since 1970 by the server's clock."""
    column = "coalesce(ended_at, started_at)"
    pg = look.dialect is Dialect.POSTGRESQL
    seconds = f"floor(extract(epoch FROM {column}))" if pg else f"CAST(strftime('%s', {column}) AS integer)"
    sql = f"SELECT {seconds} AS s FROM {table('run', look.dialect)} WHERE run = :run"
    return look.row(sql, {"run": run}).integer("s")


def latest_standing(look: Look, playbook: str) -> RunRow | None:
    """The newest run of a playbook whose changes stand; None where there is none."""
    runs = [run for run in latest_runs(look, playbook=playbook) if not (run.rolled_back or run.removed_by)]
    found = next((run for run in runs if standing(look, run.run)), None)
    return found or next((run for run in runs if lost(look, run.run)), None)


def _runs(look: Look, *, where: str, params: Mapping[str, Value]) -> list[RunRow]:
    age = (
        "extract(epoch FROM clock_timestamp() - coalesce(ended_at, started_at))"
        if look.dialect is Dialect.POSTGRESQL
        else "(julianday('now') - julianday(coalesce(ended_at, started_at))) * 86400.0"
    )
    back = f"SELECT 1 FROM {table('step_commit', look.dialect)} AS a WHERE a.run = r.run AND a.action = 'revert'"
    find = "strpos" if look.dialect is Dialect.POSTGRESQL else "instr"
    gone = f"""SELECT l.run FROM {table("run", look.dialect)} AS l
               WHERE {find}(l.removes, ' ' || r.playbook || ' ') > 0 AND l.started_at > r.started_at AND l.rolled_back_at IS NULL
               AND EXISTS (SELECT 1 FROM {table("step_commit", look.dialect)} AS a WHERE a.run = l.run AND a.action = 'apply')
               ORDER BY l.started_at LIMIT 1"""
    sql = f"""SELECT {_COLUMNS}, {age} AS age_s, rolled_back_at IS NOT NULL AS rolled_back, coalesce(({gone}), '') AS removed_by,
                     rolled_back_at IS NULL AND state IN ('succeeded', 'ended_unproven') AND EXISTS ({back}) AS going_back
              FROM {table("run", look.dialect)} AS r WHERE {where} ORDER BY started_at DESC, run DESC"""
    return [_run(row) for row in look.rows(sql, params)]


def _run(row: Row) -> RunRow:
    texts = {name.strip(): row.text(name.strip()) for name in _COLUMNS.split(",") if name.strip() != "trail_length"}
    length, age = row.integer("trail_length"), row.number("age_s")
    return RunRow(
        **texts,
        trail_length=length,
        age_s=age,
        rolled_back=row.flag("rolled_back"),
        going_back=row.flag("going_back"),
        removed_by=row.text("removed_by"),
    )
