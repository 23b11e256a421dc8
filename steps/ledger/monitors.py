"""What monitors have seen: one row for each observation, who is looking now, and what people said about an alert.

An observation carries the monitor's state with it (since when it is broken, since when it alerts), so the newest row is the
state, and nothing beside it has to be kept in step. Times are the server's, as seconds since 1970 where they are passed on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from steps.contract import Look, Row, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger.tables import AHEAD_S, ON_DEMAND, create, table, tables

Act = Literal["approve", "mute"]


@dataclass(frozen=True)
class Observation:
    """One look of a monitor. figures: JSON. broken_since, alert_since: None where it is not broken, or does not alert."""

    run: str
    monitor: str
    due_at: float
    at: float
    answer: str
    text: str
    figures: str
    broken_since: float | None
    alert_since: float | None
    seconds: float
    missed: int
    host: str


@dataclass(frozen=True)
class MonitorAct:
    """A person's word about a monitor: its standing alert is approved, or it is muted; until: None for no end."""

    monitor: str
    act: str
    by: str
    reason: str
    until: float | None
    at: float


@dataclass(frozen=True)
class Claim:
    """Who is looking now. holder: JSON that identifies the process; left_s: until the claim is void."""

    holder: str
    left_s: float


def kept(look: Look) -> bool:
    """Whether the ledger has the tables of monitors."""
    return tables(look) >= ON_DEMAND


def keep(work: Work) -> None:
    """Create the tables of monitors in a ledger that has none yet."""
    create(work)


def _seconds(dialect: Dialect, column: str) -> str:
    """A column with a time, as seconds since 1970."""
    if dialect is Dialect.POSTGRESQL:
        return f"CAST(extract(epoch FROM {column}) AS double precision)"
    return f"((julianday({column}) - 2440587.5) * 86400.0)"


def _moment(dialect: Dialect, seconds: str) -> str:
    """Seconds since 1970 (an SQL expression) as the time that a column holds; NULL stays NULL."""
    if dialect is Dialect.POSTGRESQL:
        return f"to_timestamp(CAST({seconds} AS double precision))"
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {seconds}, 'unixepoch')"


def _now(dialect: Dialect) -> str:
    return "extract(epoch FROM clock_timestamp())" if dialect is Dialect.POSTGRESQL else _seconds(dialect, "'now'")


# ─── observations ───────────────────────────────────────────────────────────────────────────────────────────────────
_TIMES = ("due_at", "at", "broken_since", "alert_since")
_PLAIN = ("run", "monitor", "answer", "text", "figures", "seconds", "missed", "host")


def add_observation(work: Work, seen: Observation) -> bool:
    """Record one look; False where that due time has one already."""
    values: dict[str, Value] = {name: getattr(seen, name) for name in (*_PLAIN, *_TIMES)}
    names = ", ".join((*_PLAIN, *_TIMES))
    given = ", ".join([*(f":{name}" for name in _PLAIN), *(_moment(work.dialect, f":{name}") for name in _TIMES)])
    sql = f"""INSERT INTO {table("observation", work.dialect)} ({names}) VALUES ({given})
              ON CONFLICT (run, monitor, due_at) DO NOTHING"""
    return work.execute(sql, values) == 1


def observations(look: Look, *, run: str, monitor: str, most: int, ahead: bool = False) -> list[Observation]:
    """A monitor's latest observations, newest first; ahead: with those from later than the server's clock, which went back."""
    believed = "" if ahead else f"AND NOT ({_ahead(look.dialect, 'due_at')})"
    sql = f"""SELECT {_columns(look.dialect)} FROM {table("observation", look.dialect)}
              WHERE run = :run AND monitor = :monitor {believed} ORDER BY due_at DESC LIMIT :most"""
    return [_observation(row) for row in look.rows(sql, {"run": run, "monitor": monitor, "most": most})]


def forget_ahead(work: Work, *, run: str, monitor: str) -> int:
    """Delete the observations from later than the server's clock, which would stand for looks to come; returns how many."""
    sql = f"""DELETE FROM {table("observation", work.dialect)} WHERE run = :run AND monitor = :monitor
              AND {_ahead(work.dialect, "due_at")}"""
    return work.execute(sql, {"run": run, "monitor": monitor})


def _ahead(dialect: Dialect, column: str) -> str:
    return f"{_seconds(dialect, column)} > {_now(dialect)} + {AHEAD_S}"


def alerts_since(look: Look, *, run: str, within_s: float) -> list[Observation]:
    """The observations of a run's monitors within the last seconds that alerted, newest first."""
    sql = f"""SELECT {_columns(look.dialect)} FROM {table("observation", look.dialect)} WHERE run = :run
              AND alert_since IS NOT NULL AND {_seconds(look.dialect, "at")} >= {_now(look.dialect)} - :within ORDER BY at DESC"""
    return [_observation(row) for row in look.rows(sql, {"run": run, "within": within_s})]


def _columns(dialect: Dialect) -> str:
    return ", ".join([*_PLAIN, *(f"{_seconds(dialect, name)} AS {name}_s" for name in _TIMES)])


def _observation(row: Row) -> Observation:
    return Observation(
        run=row.text("run"),
        monitor=row.text("monitor"),
        due_at=round(row.number("due_at_s"), 3),
        at=row.number("at_s"),
        answer=row.text("answer"),
        text=row.text("text"),
        figures=row.text("figures"),
        broken_since=_maybe(row, "broken_since_s"),
        alert_since=_maybe(row, "alert_since_s"),
        seconds=row.number("seconds"),
        missed=row.integer("missed"),
        host=row.text("host"),
    )


def _maybe(row: Row, name: str) -> float | None:
    return None if row[name] is None else row.number(name)


# ─── claims ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def claim(work: Work, *, run: str, monitor: str, holder: str, seconds: float, dead: str = "") -> bool:
    """Claim a monitor for so many seconds; False where another process holds it.

    dead: the holder that is known to have died, whose claim is void at once; as is one for longer than anybody claims it.
    """
    until = _moment(work.dialect, f"{_now(work.dialect)} + :seconds")
    claims, now = table("monitor_claim", work.dialect), _moment(work.dialect, _now(work.dialect))
    sql = f"""INSERT INTO {claims} AS c (run, monitor, holder, until) VALUES (:run, :monitor, :holder, {until})
              ON CONFLICT (run, monitor) DO UPDATE SET holder = excluded.holder, until = excluded.until
              WHERE c.until < {now} OR c.until > excluded.until OR c.holder = :dead"""
    values: dict[str, Value] = {"run": run, "monitor": monitor, "holder": holder, "seconds": seconds, "dead": dead}
    return work.execute(sql, values) == 1


def release(work: Work, *, run: str, monitor: str, holder: str) -> bool:
    """Give a claim back; False where it had expired and another process has taken it over."""
    sql = f"DELETE FROM {table('monitor_claim', work.dialect)} WHERE run = :run AND monitor = :monitor AND holder = :holder"
    return work.execute(sql, {"run": run, "monitor": monitor, "holder": holder}) == 1


def claimed(look: Look, *, run: str, monitor: str) -> Claim | None:
    """Who has claimed the monitor; None where nobody has."""
    left = f"{_seconds(look.dialect, 'until')} - {_now(look.dialect)}"
    sql = f"""SELECT holder, {left} AS left_s FROM {table("monitor_claim", look.dialect)}
              WHERE run = :run AND monitor = :monitor"""
    rows = look.rows(sql, {"run": run, "monitor": monitor})
    return Claim(rows[0].text("holder"), rows[0].number("left_s")) if rows else None


# ─── people ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Person:
    """Who says something: the name as claimed, and the system's user and host."""

    name: str
    user: str
    host: str


def add_act(work: Work, *, run: str, monitor: str, act: Act, by: Person, reason: str, for_s: float | None) -> None:
    """Record a person's word; for_s: for how long it holds, None for no end."""
    until = "NULL" if for_s is None else _moment(work.dialect, f"{_now(work.dialect)} + :for_s")
    sql = f"""INSERT INTO {table("monitor_act", work.dialect)} (run, monitor, act, by_whom, os_user, host, reason, until)
              VALUES (:run, :monitor, :act, :by, :user, :host, :reason, {until})"""
    more: dict[str, Value] = {} if for_s is None else {"for_s": for_s}
    work.execute(
        sql,
        {
            "run": run,
            "monitor": monitor,
            "act": act,
            "by": by.name,
            "user": by.user,
            "host": by.host,
            "reason": reason,
            **more,
        },
    )


def acts(look: Look, runs: Collection[str]) -> dict[str, list[MonitorAct]]:
    """What people said about the monitors of these runs, newest first."""
    found: dict[str, list[MonitorAct]] = {run: [] for run in runs}
    for run in found:
        sql = f"""SELECT monitor, act, by_whom, reason, {_seconds(look.dialect, "until")} AS until_s,
                  {_seconds(look.dialect, "at")} AS at_s FROM {table("monitor_act", look.dialect)}
                  WHERE run = :run ORDER BY seq DESC"""
        found[run] = [
            MonitorAct(
                r.text("monitor"),
                r.text("act"),
                r.text("by_whom"),
                r.text("reason"),
                _maybe(r, "until_s"),
                r.number("at_s"),
            )
            for r in look.rows(sql, {"run": run})
        ]
    return found
