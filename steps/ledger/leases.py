"""The ledger's tables lease and heartbeat: one changing run per target, and what keeps out a run that lost its lease."""

from __future__ import annotations

from dataclasses import dataclass

from steps.contract import Look, Question, RunPosition, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger.tables import now_sql, table


@dataclass(frozen=True)
class Lease:
    """Who may change this target now. holder: JSON of host, pid and the process's start time."""

    scope: str
    epoch: int
    run: str
    holder: str
    silent_s: float  # seconds since the last heartbeat, by the server's clock
    beat: str  # that heartbeat, told apart from every other


def lease(look: Look, scope: str) -> Lease | None:
    """The lease as it stands; run '' means it was given back."""
    silent = (
        "extract(epoch FROM clock_timestamp() - h.beat_at)"
        if look.dialect is Dialect.POSTGRESQL
        else "(julianday('now') - julianday(h.beat_at)) * 86400.0"
    )
    sql = f"""SELECT l.scope, l.epoch, l.run, l.holder, {silent} AS silent_s, CAST(h.beat_at AS text) AS beat
              FROM {table("lease", look.dialect)} l
              JOIN {table("heartbeat", look.dialect)} h ON h.scope = l.scope WHERE l.scope = :scope"""
    rows = look.rows(sql, {"scope": scope})
    if not rows:
        return None
    row = rows[0]
    epoch = row.integer("epoch")
    beat = f"{scope} {epoch} {row.text('beat')}"
    return Lease(scope, epoch, row.text("run"), row.text("holder"), row.number("silent_s"), beat)


def scopes_held(look: Look) -> list[str]:
    """The scopes whose lease some run has, living or dead."""
    rows = look.rows(f"SELECT scope FROM {table('lease', look.dialect)} WHERE run <> '' ORDER BY scope")
    return [row.text("scope") for row in rows]


def take_lease(work: Work, *, scope: str, run: str, holder: str, epoch: int) -> int:
    """Take the lease if it still stands at `epoch` (0: never taken); returns the new epoch, 0 where somebody was faster.

    The UPDATE waits for commits in flight, because each of them holds the row FOR SHARE.
    """
    now = now_sql(work.dialect)
    values: dict[str, Value] = {"scope": scope, "run": run, "holder": holder, "epoch": epoch}
    if epoch == 0:
        sql = f"""INSERT INTO {table("lease", work.dialect)} (scope, epoch, run, holder) VALUES (:scope, 1, :run, :holder)
                  ON CONFLICT (scope) DO NOTHING"""
        taken = work.execute(sql, {k: values[k] for k in ("scope", "run", "holder")})
    else:
        sql = f"""UPDATE {table("lease", work.dialect)} SET epoch = epoch + 1, run = :run, holder = :holder, taken_at = {now}
                  WHERE scope = :scope AND epoch = :epoch"""
        taken = work.execute(sql, values)
    if taken != 1:
        return 0
    beat = f"""INSERT INTO {table("heartbeat", work.dialect)} (scope, epoch) VALUES (:scope, :epoch)
               ON CONFLICT (scope) DO UPDATE SET epoch = excluded.epoch, beat_at = {now}"""
    work.execute(beat, {"scope": scope, "epoch": epoch + 1})
    return epoch + 1


def fence(work: Work, *, scope: str, epoch: int) -> bool:
    """Whether this run still holds the lease; keeps a take-over waiting until this transaction ends."""
    share = " FOR SHARE" if work.dialect is Dialect.POSTGRESQL else ""
    sql = f"SELECT epoch FROM {table('lease', work.dialect)} WHERE scope = :scope AND epoch = :epoch{share}"
    return bool(work.rows(sql, {"scope": scope, "epoch": epoch}))


def standing(dialect: Dialect, place: RunPosition, *, label: str, scope: str, epoch: int) -> Question:
    """Whether `label` is committed (known), and PostgreSQL's number of this transaction (xid).

    No row where this run no longer holds the lease (see `fence`; epoch 0: none was taken).
    """
    pg = dialect is Dialect.POSTGRESQL
    sql = f"""SELECT EXISTS (SELECT 1 FROM {table("step_commit", dialect)} WHERE run = :run AND step = :step AND action = :action
              AND label = :label) AS known, {"CAST(pg_current_xact_id() AS text)" if pg else "NULL"} AS xid"""
    values: dict[str, Value] = {"run": place.run, "step": place.step, "action": place.action, "label": label}
    if epoch == 0:
        return sql, values
    sql += f" FROM {table('lease', dialect)} l WHERE l.scope = :scope AND l.epoch = :epoch{' FOR SHARE OF l' if pg else ''}"
    return sql, {**values, "scope": scope, "epoch": epoch}


def standing_or_fault(*, scope: str, epoch: int) -> Question:
    """The same fence for a transaction of PostgreSQL's that nobody looks into before COMMIT: where it fell, a division by zero."""
    sql = f"""SELECT 1 / count(*) AS stands FROM (SELECT 1 FROM {table("lease", Dialect.POSTGRESQL)}
              WHERE scope = :scope AND epoch = :epoch FOR SHARE) AS l"""
    return sql, {"scope": scope, "epoch": epoch}


def beat(work: Work, *, scope: str, epoch: int) -> bool:
    """Say that the holder lives; False where the lease was taken over."""
    now = now_sql(work.dialect)
    sql = f"UPDATE {table('heartbeat', work.dialect)} SET beat_at = {now} WHERE scope = :scope AND epoch = :epoch"
    return work.execute(sql, {"scope": scope, "epoch": epoch}) == 1


def give_back(work: Work, *, scope: str, epoch: int) -> None:
    """End the lease: the epoch stays, so that what was fenced by it stays fenced."""
    sql = (
        f"UPDATE {table('lease', work.dialect)} SET run = '', epoch = epoch + 1 WHERE scope = :scope AND epoch = :epoch"
    )
    work.execute(sql, {"scope": scope, "epoch": epoch})
