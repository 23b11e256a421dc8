"""Begins and ends transactions. To save round trips, settings and the first statement are sent together with BEGIN, the
last statement together with COMMIT.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.target import drivers, session_settings
from runner.target.drivers import BUSY_MS
from runner.target.session_settings import SessionSettings
from steps.contract import DatabaseFault, Look, Question, Row, Value
from steps.contract.dialect import Dialect
from steps.ledger.tables import BEGAN
from steps.sql.dialect import bind, parameters

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

LOOKING_IDLE = "5min"  # idle timeout of a reading transaction
_IN_THE_FUTURE = "22023"  # the xid is unknown: the server crashed before it was on disk


def begin_look(connection: Connection, dialect: Dialect, settings: SessionSettings, *, pooled: bool) -> None:
    """pooled: the session is a pooler's, which has the role's timeouts in each transaction anew."""
    if dialect is Dialect.SQLITE:
        connection.exec_driver_sql("BEGIN")
    else:
        drivers.limit(connection, settings.statement_s)
        if pooled:
            connection.exec_driver_sql(session_settings.UNTIMED[0])
        # After the first SELECT the transaction can't be made writable any more.
        sql, values = session_settings.to_set(replace(settings, idle=LOOKING_IDLE))
        connection.exec_driver_sql(bind(sql, dialect), dict(values)).fetchall()


FOREIGN_KEYS = "foreign_keys"


def begin_work(
    connection: Connection,
    dialect: Dialect,
    settings: SessionSettings,
    *,
    durable: bool = True,
    off: Sequence[str] = (),
    first: Question | None = None,
) -> list[Row]:
    """Begin a writing transaction and run `first`, in one round trip; returns the rows of `first`.

    durable: False allows asynchronous commit. off: planner methods to disable (SQLite: foreign_keys).
    """
    if dialect is Dialect.SQLITE:
        # On SQLite nobody queues behind our wait for the lock, so it may be longer than on a server.
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {max(int(settings.lock_s * 1000), BUSY_MS)}")
        if FOREIGN_KEYS in off:  # within a transaction SQLite ignores this pragma
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return [Row(row) for row in connection.exec_driver_sql(*_for_sqlite(first)).mappings()] if first else []
    drivers.limit(connection, settings.statement_s)
    begun = _begun(settings, durable=durable, off=off)
    return _together(connection, *begun, *([first] if first else []))


def _begun(
    settings: SessionSettings, *, durable: bool, off: Sequence[str], planned_once: bool = False
) -> list[Question]:
    lazy = "" if durable else _LAZY
    unused = "".join(f", set_config('enable_{name}', 'off', true)" for name in off)
    unused += _GENERIC if planned_once else ""
    began = f", set_config('{BEGAN}', CAST(extract(epoch FROM clock_timestamp()) AS text), true)"
    return [
        (session_settings.BEGIN, {}),
        session_settings.UNTIMED,
        session_settings.to_set(settings, also=lazy + unused + began),
    ]


def commit(connection: Connection, dialect: Dialect, last: Question | None) -> None:
    """Send the transaction's last statement and COMMIT in one round trip."""
    if last is not None and dialect is Dialect.SQLITE:
        connection.exec_driver_sql(*_for_sqlite(last))
    elif last is not None:
        _together(connection, last, ("COMMIT", {}))
    connection.commit()


@dataclass(frozen=True)
class Whole:
    """A complete transaction that needs no decision in between. Its statement returns one row and casts its parameters."""

    fence: Question | None
    statement: Question
    act: Question


def commit_all(
    connection: Connection,
    settings: SessionSettings,
    wholes: Sequence[Whole],
    *,
    durable: bool,
    off: Sequence[str] = (),
) -> list[Row]:
    """Run several transactions sent as one message (PostgreSQL only); returns the row of each one's statement.

    Each has its own BEGIN, settings, fence, statement, ledger row and COMMIT. After an error the server skips the rest.
    """
    drivers.limit(connection, settings.statement_s * len(wholes))
    texts: list[str] = []
    places: list[int] = []
    # Only the last COMMIT waits for the disk: the WAL is sequential, so it makes the ones before it durable as well.
    begun = [_text(connection, one) for one in _begun(settings, durable=False, off=off, planned_once=True)]
    last = [_text(connection, one) for one in _begun(settings, durable=durable, off=off, planned_once=True)]
    executions = _executions(connection, [one.statement for one in wholes])
    for number, (one, execution) in enumerate(zip(wholes, executions, strict=True), start=1):
        texts += last if number == len(wholes) else begun
        texts += [_text(connection, one.fence)] if one.fence else []
        texts += execution
        places.append(len(texts) - 1)
        texts += [_text(connection, one.act), "COMMIT"]
    return [rows[0] for rows in _sent(connection, texts, places)]


def _executions(connection: Connection, questions: Iterable[Question]) -> Iterator[list[str]]:
    """The statements that execute each question; consecutive equal texts are prepared only once.

    Prepared within a transaction, because only there the search_path is set.
    """
    prepared = ""
    for sql, values in questions:
        prepare, names = _prepare(sql)
        given = ", ".join(_quoted(connection, [values[name] for name in names]))
        execute = f"EXECUTE runbook_whole({given})" if given else "EXECUTE runbook_whole"
        yield [execute] if sql == prepared else ["DEALLOCATE ALL", prepare, execute]
        prepared = sql


@functools.lru_cache(maxsize=8)
def _prepare(sql: str) -> tuple[str, tuple[str, ...]]:
    """The PREPARE for this statement, and the names of its parameters in order.

    Otherwise a short batch would spend a tenth of its time on planning the same statement again.
    """
    names = parameters(sql, Dialect.POSTGRESQL)
    numbered = {name: f"${number}" for number, name in enumerate(names, start=1)}
    return f"PREPARE runbook_whole AS {bind(sql, Dialect.POSTGRESQL) % numbered}", names


def roll_back(connection: Connection, dialect: Dialect) -> None:
    """Roll back, also if SQLAlchemy doesn't know of the transaction (its BEGIN was part of a message of ours)."""
    connection.rollback()
    if dialect is Dialect.POSTGRESQL:
        raw: Any = connection.connection.driver_connection
        raw.rollback()


def _for_sqlite(question: Question) -> tuple[str, dict[str, Any]]:
    sql, values = question
    return bind(sql, Dialect.SQLITE), dict(values)


def _together(connection: Connection, *questions: Question) -> list[Row]:
    """Send statements as one message; returns the rows of the last one."""
    [rows] = _sent(connection, [_text(connection, one) for one in questions], [len(questions) - 1])
    return rows


def _text(connection: Connection, question: Question) -> str:
    """A statement with its values as literals, quoted by the driver."""
    text, values = question
    return bind(text, Dialect.POSTGRESQL) % dict(zip(values, _quoted(connection, values.values()), strict=True))


def _quoted(connection: Connection, values: Iterable[Value]) -> list[str]:
    from psycopg import sql as driver

    raw: Any = connection.connection.driver_connection
    return [driver.quote(value, raw) for value in values]


def _sent(connection: Connection, texts: Sequence[str], wanted: Sequence[int]) -> list[list[Row]]:
    """Send statements as one message; returns the rows of those whose indexes (ascending) are `wanted`."""
    raw: Any = connection.connection.driver_connection
    found: list[list[Row]] = []
    with raw.cursor() as cursor:
        cursor.execute("; ".join(texts))
        for number in range(wanted[-1] + 1):
            if number:
                cursor.nextset()
            if number in wanted:
                found.append(_rows(cursor))
    return found


def _rows(cursor: Any) -> list[Row]:
    columns = cursor.description  # a property that is expensive to compute
    if columns is None:
        return []
    names = [column.name for column in columns]
    return [Row(zip(names, map(drivers.plain, row), strict=True)) for row in cursor.fetchall()]


def begin_outside(connection: Connection, dialect: Dialect, settings: SessionSettings) -> None:
    if dialect is Dialect.SQLITE:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_MS}")
        return
    _refuse_pooler(connection)
    drivers.limit(connection, settings.statement_s)
    _together(connection, session_settings.to_set(settings, local=False))


def pooled(connection: Connection) -> bool:
    """Whether there is a pooler between us and the server process (PostgreSQL)."""
    row = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
    return int(row[0]) != drivers.backend_pid(connection)


def _refuse_pooler(connection: Connection) -> None:
    """Refuse autocommit behind a pooler: session settings would leak to other clients, and the server process that runs
    the statement could not be found or cancelled.
    """
    if pooled(connection):
        raise DatabaseFault(
            "cannot run this through a connection pooler: what is outside of a transaction (CONCURRENTLY, VACUUM) needs a "
            "connection of its own; give --target the server's own host and port",
            sqlstate="0A000",
        )


# With synchronous standbys each commit must reach them, so it stays synchronous.
_LAZY = """, set_config('synchronous_commit', CASE current_setting('synchronous_standby_names') WHEN '' THEN 'off'
            ELSE current_setting('synchronous_commit') END, true)"""


# A generic plan overestimates costs, which would trigger JIT compilation; that takes longer than a batch.
_GENERIC = ", set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true)"


def transaction_id(look: Look) -> str | None:
    """The server's id of this transaction; None on SQLite, where no answer can get lost."""
    if look.dialect is Dialect.SQLITE:
        return None
    return look.row("SELECT pg_current_xact_id()::text AS xid").text("xid")


def session_ended(look: Look, pid: int) -> bool:
    """Whether our server process `pid`, whose connection was lost, is gone; if not, terminate it."""
    sql = """SELECT pg_terminate_backend(pid) AS told FROM pg_catalog.pg_stat_activity
             WHERE pid = :pid AND usename = session_user AND application_name LIKE 'runbook%'"""
    return not look.rows(sql, {"pid": pid})


def end_unheard(look: Look, pid: int) -> None:
    """Terminate our server process `pid`, whose connection was lost, if it is idle in its transaction."""
    sql = """SELECT pg_terminate_backend(pid) AS told FROM pg_catalog.pg_stat_activity
             WHERE pid = :pid AND usename = session_user AND application_name LIKE 'runbook%'
               AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '1 s'"""
    look.rows(sql, {"pid": pid})


def transaction_status(look: Look, xid: str | None) -> str | None:
    """'committed', 'aborted', 'in progress', or None if the server doesn't know: too long ago, or lost in a crash."""
    if xid is None:
        return None
    try:
        return look.row("SELECT pg_xact_status(CAST(:xid AS xid8)) AS status", {"xid": xid}).maybe_text("status")
    except DatabaseFault as fault:
        if fault.sqlstate != _IN_THE_FUTURE:
            raise
        return None
