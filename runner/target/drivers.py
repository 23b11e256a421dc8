"""Differences between psycopg and sqlite3: opening and cancelling connections, values, errors."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from runner.target import network_waits, session_settings, value_loaders
from steps.contract import DatabaseFault, Value, cutting
from steps.contract.dialect import Dialect

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.engine import Connection, Engine

    from runner.target.resolve import ConnectArguments

CONNECT_S = 10
BUSY_MS = 5000
SHOWN = 160  # maximum length of a statement quoted in an error message
SIGNALS_EVERY = 1_000_000  # SQLite VM instructions, about 20 ms
_LOST = ("08", "25P03", "25P04", "57P01", "57P02", "57P03", "57P05")
# SQLite's primary result codes → the nearest SQLSTATE
_SQLITE = {
    5: "55P03",
    6: "55P03",
    8: "25006",
    9: "57014",
    10: "58030",
    11: "XX001",
    13: "53100",
    14: "08001",
    19: "23000",
    23: "42501",
    1: "HY000",
}
_CONSTRAINTS = {275: "23514", 787: "23503", 1299: "23502", 1555: "23505", 2067: "23505"}


# ─── opening ────────────────────────────────────────────────────────────────────────────────────────────────────────
def engine(arguments: ConnectArguments, *, reading: bool, patience: Patience) -> Engine:
    """A SQLAlchemy engine without a pool, so that a connection is never silently replaced by one without its settings."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    # A lost connection raises an error of its own; the pool would log a traceback as well.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    if arguments.path is not None:
        return create_engine("sqlite://", poolclass=NullPool, creator=lambda: _open_sqlite(arguments, reading=reading))
    return create_engine(
        "postgresql+psycopg://",
        poolclass=NullPool,
        creator=lambda: _open_postgresql(arguments, reading=reading, patience=patience),
        use_native_hstore=False,
    )


def _open_sqlite(arguments: ConnectArguments, *, reading: bool) -> sqlite3.Connection:
    import sqlite3

    connection = sqlite3.connect(
        str(arguments.path), timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA foreign_keys = ON")
    connection.set_progress_handler(_let_signals_in, SIGNALS_EVERY)
    if reading:
        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(_read_only)
    return connection


def _let_signals_in() -> int:
    """Do nothing: entering Python lets it run signal handlers; otherwise ^C would wait for the statement's end."""
    return 0


def _read_only(action: int, one: str | None, two: str | None, _database: str | None, _trigger: str | None) -> int:
    """SQLite authorizer that allows nothing but reading; called while a statement is prepared."""
    import sqlite3

    reading = {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_TRANSACTION,
    }
    if action in reading:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_UPDATE and one == "sqlite_master":
        # This is how SQLite declares its own pragma tables; a real update needs writable_schema, which is denied.
        return sqlite3.SQLITE_OK
    asks = (
        action == sqlite3.SQLITE_PRAGMA
        and one is not None
        and (one.endswith(_ASKING_OF) or (one in _ASKING and two is None))
    )
    return sqlite3.SQLITE_OK if asks else sqlite3.SQLITE_DENY


_ASKING = frozenset(
    {
        "read_uncommitted",
        "page_count",
        "page_size",
        "freelist_count",
        "database_list",
        "journal_mode",
        "encoding",
        "data_version",
        "compile_options",
        "user_version",
        "auto_vacuum",
        "schema_version",
    }
)
_ASKING_OF = ("_info", "_xinfo", "_list", "_check")


# TCP keepalives that detect a dead peer within half a minute; settings in the URL take precedence.
_KEEPALIVE = {
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


@dataclass
class Patience:
    """The connect timeout and the probe for silent servers; shared by all connections of a database."""

    connect_s: int = CONNECT_S
    probe: network_waits.Probe | None = None


def _words(arguments: ConnectArguments, connect_s: int) -> dict[str, Any]:
    words: dict[str, Any] = {
        "connect_timeout": connect_s,
        "application_name": "runbook",
        **_KEEPALIVE,
        **arguments.libpq,
    }
    if arguments.password is not None:
        words["password"] = arguments.password
    # The protocol messages that follow are in this encoding, whatever role, environment or URL say.
    return {**words, "client_encoding": session_settings.CLIENT_ENCODING}


def _open_postgresql(arguments: ConnectArguments, *, reading: bool, patience: Patience) -> object:
    import psycopg

    words = _words(arguments, patience.connect_s)
    if reading:
        words["cursor_factory"] = _one_statement()
    connection = _bounded().connect(**words, prepare_threshold=None, autocommit=True)
    value_loaders.register(connection)
    connection.pid, connection.probe = connection.info.backend_pid, patience.probe
    psycopg.Cursor(connection).execute(_FIRST.format(pid=connection.info.backend_pid))
    connection.autocommit = False
    if reading:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    else:
        connection.autocommit = True  # BEGIN goes with what follows it, see begin_work
    return connection


@functools.cache
def _bounded() -> Any:
    """A connection class whose waits for the server are registered and limited, see network_waits."""
    import psycopg

    class Bounded(psycopg.Connection[Any]):
        pid: int = 0
        probe: network_waits.Probe | None = None
        longest: float | None = CONNECT_S

        def wait(self, gen: Any, *more: Any, **named: Any) -> Any:
            with network_waits.ALL.one(self, pid=self.pid, probe=self.probe, longest=self.longest):
                return super().wait(gen, *more, **named)

    return Bounded


def limit(connection: Connection, seconds: float) -> None:
    """Set how long the server may take for the next statements; 0: unlimited."""
    raw: Any = connection.connection.driver_connection
    raw.longest = seconds or None


def probe(arguments: ConnectArguments) -> network_waits.Probe:
    """A function that asks the server about some of its processes, over a new connection."""

    def ask(pids: list[int]) -> network_waits.Responsiveness:
        import psycopg

        try:
            with psycopg.connect(**_words(arguments, int(network_waits.PROBE_S)), autocommit=True) as connection:
                if connection.execute("SELECT pg_backend_pid()").fetchone() != (connection.info.backend_pid,):
                    return network_waits.Responsiveness(answered=True)  # a pooler: our pids mean nothing there
                rows = connection.execute(_STATES, [pids]).fetchall()
        except psycopg.Error as error:
            return network_waits.Responsiveness(answered=bool(error.sqlstate))  # a refusal is an answer, too
        idle = {pid: since for pid, state, since in rows if state and state.startswith("idle")}
        return network_waits.Responsiveness(answered=True, idle=idle, gone=frozenset(pids) - {row[0] for row in rows})

    return ask


_STATES = "SELECT pid, state, state_change::text FROM pg_catalog.pg_stat_activity WHERE pid = ANY(%s)"


# What ends an idle session or a statement of this role would end ours before it could set anything. SET LOCAL comes first, since it
# looks up nothing: a timeout of a millisecond ends the first query of a new session. Behind a pooler (the pids differ) the
# session isn't ours, and what is set ends with the transaction.
_FIRST = f"""BEGIN; {session_settings.UNTIMED[0]};
SELECT set_config(name, '0', pg_backend_pid() <> {{pid}}) FROM unnest(ARRAY['idle_session_timeout', 'statement_timeout']) AS name;
COMMIT"""


def _one_statement() -> type:
    """A cursor class for the extended protocol, in which the server refuses several statements: `SELECT 1; DELETE …`."""
    import psycopg

    class OneStatement(psycopg.Cursor[Any]):
        def execute(
            self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool | None = None
        ) -> Any:
            del prepare, binary
            return super().execute(query, params, prepare=False, binary=True)

    return OneStatement


# ─── properties of a connection ─────────────────────────────────────────────────────────────────────────────────────────
def cancel(connection: Connection, dialect: Dialect) -> None:
    """Cancel the statement that runs on this connection; called from another thread."""
    raw: Any = connection.connection.driver_connection
    if dialect is Dialect.SQLITE:
        raw.interrupt()
    else:
        raw.cancel_safe(timeout=5.0)


def password_of(connection: Connection, dialect: Dialect) -> str | None:
    """The password that this connection used, wherever libpq found it; None if there is none."""
    raw: Any = connection.connection.driver_connection
    return None if dialect is Dialect.SQLITE else (raw.info.password or None)


def dialed(connection: Connection, dialect: Dialect) -> tuple[str, str]:
    """Address (or the directory of a socket) and port that this connection was made to; ("", "") on SQLite."""
    if dialect is Dialect.SQLITE:
        return "", ""
    raw: Any = connection.connection.driver_connection
    return raw.info.hostaddr or raw.info.host, str(raw.info.port)


def backend_pid(connection: Connection) -> int:
    raw: Any = connection.connection.driver_connection
    return int(raw.info.backend_pid)


def server_version(connection: Connection, dialect: Dialect) -> tuple[int, ...]:
    if dialect is Dialect.SQLITE:
        import sqlite3

        connection.exec_driver_sql(
            "SELECT count(*) FROM sqlite_master"
        ).fetchall()  # fails if the file is not a database
        return sqlite3.sqlite_version_info
    raw: Any = connection.connection.driver_connection
    number = int(raw.info.server_version)
    return (number // 10000, number % 10000)


def environment(arguments: ConnectArguments) -> dict[str, str]:
    """Environment variables with which a child process reaches the same database; the password is in PGPASSWORD."""
    if arguments.path is not None:
        return {"RUNBOOK_URL": arguments.url}
    names = {
        "host": "PGHOST",
        "hostaddr": "PGHOSTADDR",
        "port": "PGPORT",
        "dbname": "PGDATABASE",
        "user": "PGUSER",
        "service": "PGSERVICE",
        "passfile": "PGPASSFILE",
        "sslmode": "PGSSLMODE",
        "sslrootcert": "PGSSLROOTCERT",
    }
    found = {names[word]: value for word, value in arguments.libpq.items() if word in names}
    if arguments.password is not None:
        found["PGPASSWORD"] = arguments.password
    return {**found, "RUNBOOK_URL": arguments.url}


# ─── values and faults ──────────────────────────────────────────────────────────────────────────────────────────────
def plain(value: object) -> Value:
    """Convert a driver's value to a contract Value; other types (an inet, a range) become text."""
    match value:
        case None | bool() | int() | float() | Decimal() | str() | bytes() | datetime() | date() | timedelta() | UUID():
            return value
        case list() | tuple():
            return [plain(one) for one in value]
        case dict():
            return {str(key): plain(one) for key, one in value.items()}
        case memoryview():
            return value.tobytes()
        case ipaddress.IPv4Interface() | ipaddress.IPv6Interface():
            return str(value)
        case _:
            return str(value)


@contextlib.contextmanager
def translated(dialect: Dialect, sql: str = "") -> Iterator[None]:
    """Translate driver errors to DatabaseFault. They are classified by SQLSTATE, never by message (which is localised)."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        yield
    except DBAPIError as error:
        raise _fault(error.orig, dialect, sql, invalidated=error.connection_invalidated) from error.orig
    except SQLAlchemyError as error:
        raise DatabaseFault(str(error).splitlines()[0], lost=True) from error
    except OSError as error:
        raise DatabaseFault(str(error), sqlstate="08001", lost=True) from error
    except UnicodeError as error:  # a database with encoding SQL_ASCII may hold any bytes
        raise DatabaseFault(
            f"cannot read or write a text that isn't UTF-8: {error}{_where(sql)}", sqlstate="22021"
        ) from error
    except Exception as error:
        if not type(error).__module__.startswith(("psycopg", "sqlite3")):
            raise
        raise _fault(error, dialect, sql, invalidated=False) from error


def _fault(error: BaseException | None, dialect: Dialect, sql: str, *, invalidated: bool) -> DatabaseFault:
    return (
        _sqlite_fault(error, sql)
        if dialect is Dialect.SQLITE
        else _postgresql_fault(error, sql, invalidated=invalidated)
    )


def _postgresql_fault(error: Any, sql: str, *, invalidated: bool) -> DatabaseFault:
    state = getattr(error, "sqlstate", None) or ""
    diagnosis = getattr(error, "diag", None)
    message = getattr(diagnosis, "message_primary", None) or str(error).strip().splitlines()[0]
    import psycopg

    lost = (
        invalidated
        or state.startswith(_LOST)
        or (not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError))
    )
    return DatabaseFault(
        f"{message}{_where(sql)}",
        sqlstate=state or ("08006" if lost else ""),
        detail=getattr(diagnosis, "message_detail", None) or "",
        constraint=getattr(diagnosis, "constraint_name", None) or "",
        lost=lost,
        silent=isinstance(error, psycopg.errors.ConnectionTimeout),
    )


def _sqlite_fault(error: Any, sql: str) -> DatabaseFault:
    code = cast("int", getattr(error, "sqlite_errorcode", 1))
    state = _CONSTRAINTS.get(code) or _SQLITE.get(code & 0xFF, "HY000")
    if state == "HY000" and str(error).startswith(("no such table", "no such column")):
        state = "42P01" if "table" in str(error).split(":")[0] else "42703"  # SQLite has only one code for both
    return DatabaseFault(f"{error}{_where(sql)}", sqlstate=state)


def _where(sql: str) -> str:
    text = cutting.on_one_line(sql, SHOWN)
    return f" (in: {text})" if text else ""


def describe_arguments(arguments: ConnectArguments) -> Mapping[str, str]:
    """Where a connection leads, without secrets."""
    if arguments.path is not None:
        return {"file": str(arguments.path)}
    return {
        word: arguments.libpq[word] for word in ("host", "port", "dbname", "user", "service") if word in arguments.libpq
    }
