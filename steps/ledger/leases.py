"""The lease of a target: at most one run changes it at a time, and a run that lost its lease can commit nothing more.

Each take-over raises the lease's epoch. The epoch is the fencing token: every transaction of a run first reads the lease's row
at its own epoch and keeps it locked (FOR SHARE) until COMMIT. A run that was paused or cut off and comes back after a
take-over finds another epoch, and its transaction is rolled back. So correctness depends on no clock and no timeout; the
heartbeat only decides when another run may try to take over. (What is sent outside of a transaction can't be fenced.)

SQLite needs no row lock: each transaction starts with BEGIN IMMEDIATE and is the only writer until it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from steps.contract import Look, Question, RunPosition, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger.tables import now_sql, table


@dataclass(frozen=True)
class Lease:
    """The lease on a scope of the target. holder: JSON that identifies the process (host, pid, start time)."""

    scope: str
    epoch: int
    run: str
    holder: str
    silent_s: float  # seconds since the last heartbeat, by the server's clock
    beat: str  # identifies that heartbeat: unchanged between two reads means that the holder did not beat in between


def lease(look: Look, scope: str) -> Lease | None:
    """The lease as it stands, None where it was never taken; run is '' where it was released."""
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
    """The scopes whose lease is held, whether its holder is alive or not."""
    rows = look.rows(f"SELECT scope FROM {table('lease', look.dialect)} WHERE run <> '' ORDER BY scope")
    return [row.text("scope") for row in rows]


def take_lease(work: Work, *, scope: str, run: str, holder: str, epoch: int) -> int:
    """Take the lease if it is still at `epoch` (0: never taken); returns the new epoch, or 0 where another run was faster.

    Compare-and-swap on the epoch. The UPDATE waits until the old holder's transactions in flight have ended, because each
    of them holds the row FOR SHARE.
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
    # The heartbeat has a table of its own: beating must not wait for the row locks that commits hold on the lease.
    beat = f"""INSERT INTO {table("heartbeat", work.dialect)} (scope, epoch) VALUES (:scope, :epoch)
               ON CONFLICT (scope) DO UPDATE SET epoch = excluded.epoch, beat_at = {now}"""
    work.execute(beat, {"scope": scope, "epoch": epoch + 1})
    return epoch + 1


def fence(work: Work, *, scope: str, epoch: int) -> bool:
    """Whether the lease is still at this run's epoch; on PostgreSQL its row stays locked FOR SHARE until the transaction ends.

    Without the lock, a take-over could commit between this check and our COMMIT.
    """
    share = " FOR SHARE" if work.dialect is Dialect.POSTGRESQL else ""
    sql = f"SELECT epoch FROM {table('lease', work.dialect)} WHERE scope = :scope AND epoch = :epoch{share}"
    return bool(work.rows(sql, {"scope": scope, "epoch": epoch}))


def standing(dialect: Dialect, place: RunPosition, *, label: str, scope: str, epoch: int) -> Question:
    """The first query of a transaction: the fence, whether `label` is already committed (known), and the transaction's id (xid).

    One statement for all three saves round trips. No row: the lease was taken over (see `fence`). epoch 0: the run has no
    lease, and nothing is fenced. xid is NULL on SQLite; with it PostgreSQL can say later whether a COMMIT took effect whose
    answer was lost (pg_xact_status).
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
    """The same fence for PostgreSQL's pipelined transactions, whose rows are read only after COMMIT.

    Where the lease was taken over, the division by zero makes the statement fail, and the server skips the COMMIT behind it.
    """
    sql = f"""SELECT 1 / count(*) AS stands FROM (SELECT 1 FROM {table("lease", Dialect.POSTGRESQL)}
              WHERE scope = :scope AND epoch = :epoch FOR SHARE) AS l"""
    return sql, {"scope": scope, "epoch": epoch}


def beat(work: Work, *, scope: str, epoch: int) -> bool:
    """Renew the heartbeat; False where the lease was taken over."""
    now = now_sql(work.dialect)
    sql = f"UPDATE {table('heartbeat', work.dialect)} SET beat_at = {now} WHERE scope = :scope AND epoch = :epoch"
    return work.execute(sql, {"scope": scope, "epoch": epoch}) == 1


def give_back(work: Work, *, scope: str, epoch: int) -> None:
    """Release the lease. The epoch is raised, not reset, so that a late transaction of this run is still fenced off."""
    sql = (
        f"UPDATE {table('lease', work.dialect)} SET run = '', epoch = epoch + 1 WHERE scope = :scope AND epoch = :epoch"
    )
    work.execute(sql, {"scope": scope, "epoch": epoch})
