"""Sets every PostgreSQL session setting that changes what statements mean, whatever role, database or pooler preset.

docs/session.md has the same table for people; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from steps.contract import Question, Value
from steps.sql.dialect import literal, quote

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

CLIENT_ENCODING = "UTF8"  # set when the connection is opened, because everything after that is encoded in it
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"  # explicit, so that default_transaction_* don't matter
# Sent first: an inherited statement_timeout of a millisecond would end the statement that sets everything else.
UNTIMED: Question = ("SET LOCAL statement_timeout = 0", {})
IDLE = "15s"  # the server ends a writing transaction that is idle for this long: a frozen process must not block its successor
_LAST = "pg_temp"  # named last, because unnamed it would be searched first
_FIRST = "pg_catalog"  # not named, because then it is searched first


@dataclass(frozen=True)
class Setting:
    """A setting that changes what statements mean, or whether the session survives them."""

    name: str
    value: str
    since: int = 0  # major version of PostgreSQL
    sql: str = ""  # the expression that sets it, if set_config() alone won't do


def _where_known(name: str, value: str) -> Setting:
    """A setting that a minor version added or removed: set only if this server knows it."""
    sql = (
        f"CASE WHEN current_setting('{name}', true) IS NULL THEN '{value}'"
        f" ELSE set_config('{name}', '{value}', {{local}}) END"
    )
    return Setting(name, value, sql=sql)


def _where_other(name: str, value: str, *, since: int = 0, privileged: bool = True) -> Setting:
    """A setting that is expensive or privileged: set only if it has another value and we may set it.

    If it can't be set, `unheld` reports it, and a run is refused.
    """
    now = f"coalesce(current_setting('{name}', true), '{value}')"
    right = f" OR NOT has_parameter_privilege('{name}', 'SET')" if privileged else ""
    sql = f"CASE WHEN {now} = '{value}'{right} THEN {now} ELSE set_config('{name}', '{value}', {{local}}) END"
    return Setting(name, value, since, sql)


_PARAMETER_PRIVILEGES = 15  # has_parameter_privilege()
FIXED = (
    Setting("TimeZone", "UTC"),
    Setting("DateStyle", "ISO, YMD"),
    Setting("IntervalStyle", "postgres"),
    Setting("extra_float_digits", "1"),
    Setting("bytea_output", "hex"),
    Setting("xmloption", "content"),
    Setting("xmlbinary", "base64"),
    Setting("lc_monetary", "C"),
    Setting("lc_numeric", "C"),
    Setting("lc_time", "C"),
    Setting("standard_conforming_strings", "on"),
    Setting("transform_null_equals", "off"),
    Setting("array_nulls", "on"),
    Setting("backslash_quote", "safe_encoding"),
    _where_other("timezone_abbreviations", "Default", privileged=False),  # setting it makes the server read a file
    _where_known("restrict_nonsystem_relation_kind", ""),
    Setting("check_function_bodies", "on"),
    Setting("plpgsql.check_asserts", "on"),
    Setting("gin_fuzzy_search_limit", "0"),
    Setting("quote_all_identifiers", "off"),
    Setting("row_security", "off"),
    Setting("client_connection_check_interval", "500ms"),
    Setting("exit_on_error", "off"),
    Setting("transaction_timeout", "0", since=17),
    _where_other("event_triggers", "on", since=17),
    _where_other("zero_damaged_pages", "off", since=_PARAMETER_PRIVILEGES),
    _where_other("ignore_checksum_failure", "off", since=_PARAMETER_PRIVILEGES),
    # Only privileged roles may set it, even to its current value: so only if it has another one.
    Setting(
        "session_replication_role",
        "origin",
        sql="CASE current_setting('session_replication_role') WHEN 'origin' THEN 'origin'"
        " ELSE set_config('session_replication_role', 'origin', {local}) END",
    ),
    # With `off`, a crash of the server could lose a commit that the trail already records as done.
    Setting(
        "synchronous_commit",
        "on",
        sql="CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', {local})"
        " ELSE current_setting('synchronous_commit') END",
    ),
)
# For autocommit, where no BEGIN states these.
OUTSIDE = (
    Setting("default_transaction_isolation", "read committed"),
    Setting("default_transaction_read_only", "off"),
    Setting("default_transaction_deferrable", "off"),
    Setting("idle_session_timeout", "0"),
)


@dataclass(frozen=True)
class SessionSettings:
    """The variable settings of a transaction; times in seconds, 0: unlimited."""

    application_name: str
    lock_s: float
    statement_s: float
    path: tuple[str, ...]
    version: tuple[int, ...] = ()
    idle: str = IDLE
    transaction_s: float = 0.0  # PostgreSQL 17 and later
    replication: bool = True  # whether this role may set session_replication_role
    monetary: str = "C"  # lc_monetary: the database's own if its currency does not have two decimals


def to_set(settings: SessionSettings, *, local: bool = True, also: str = "") -> Question:
    """A SELECT that makes all settings; local to the transaction, so that a pooler can't leak them to other clients."""
    values: dict[str, Value] = {
        "application_name": settings.application_name,
        "lock_timeout": f"{int(settings.lock_s * 1000)}ms",
        "statement_timeout": f"{int(settings.statement_s * 1000)}ms",
        "idle_in_transaction_session_timeout": settings.idle,
        "search_path": path_sql(settings.path),
    }
    if settings.transaction_s:
        # Before 17 there is no transaction_timeout, but at least an idle transaction is ended in time.
        values["idle_in_transaction_session_timeout"] = f"{max(int(settings.transaction_s * 1000), 1)}ms"
        values |= (
            {"transaction_timeout": f"{int(settings.transaction_s * 1000)}ms"} if settings.version >= (17,) else {}
        )
    scope = "true" if local else "false"
    calls = [f"set_config('{name}', :{name}, {scope})" for name in values]
    calls += [_call(one, scope) for one in _fixed(settings, local=local)]
    return f"SELECT {', '.join(calls)}{also}", values


def _fixed(settings: SessionSettings, *, local: bool) -> list[Setting]:
    return [
        replace(one, value=settings.monetary) if one.name == "lc_monetary" else one
        for one in (FIXED if local else FIXED + OUTSIDE)
        if settings.version >= (one.since,)
        and not (settings.transaction_s and one.name == "transaction_timeout")
        and (settings.replication or one.name != "session_replication_role")
    ]


def unheld(connection: Connection, settings: SessionSettings) -> dict[str, str]:
    """Fixed settings that the server did not accept → the value it has instead."""
    wanted = [one for one in _fixed(settings, local=True) if one.name != "synchronous_commit"]
    raw: Any = connection.connection.driver_connection
    asked = ", ".join(f"{_call(one, 'true')} AS s{n}" for n, one in enumerate(wanted))
    held = raw.execute(f"SELECT {asked}").fetchone()
    raw.rollback()
    return {one.name: value for one, value in zip(wanted, held, strict=True) if value != one.value}


def _call(setting: Setting, scope: str) -> str:
    return (
        setting.sql.format(local=scope)
        if setting.sql
        else f"set_config('{setting.name}', {literal(setting.value)}, {scope})"
    )


def path_sql(path: Iterable[str]) -> str:
    """The value of search_path for these schemas: pg_catalog comes before them, temporary objects after them."""
    return ", ".join([*(quote(one) for one in path if one not in {_FIRST, _LAST}), _LAST])


# ─── inherited settings ─────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Inherited:
    """The settings of a session as role, database, environment or pooler left them, before we set anything."""

    encoding: str = "UTF8"
    read_only: bool = False
    read_only_from: str = ""
    standby: bool = False
    pooled: bool = False  # whether there is a pooler between us and the server process
    replication_role: str = "origin"
    may_replicate: bool = True  # whether this role may set session_replication_role
    path: tuple[str, ...] = ()  # the existing schemas of its search_path
    extensions: tuple[str, ...] = ()  # schemas of extensions whose types some table uses
    schema_there: bool = True  # whether the playbook's schema exists
    role: str = ""
    monetary: str = "C"  # the lc_monetary to use
    unheld: Mapping[str, str] = field(default_factory=dict)  # see unheld()

    def refusals(self) -> list[Refusal]:
        """Why nothing can be changed through this session; [] if it can."""
        found: list[Refusal] = []
        if self.standby:
            found.append(Refusal("the server is a standby, which is read-only", "give --target the primary"))
        elif self.read_only:
            why = f"transactions of {self.role!r} are read-only here: default_transaction_read_only is on, set by {self.read_only_from}"
            mend = (
                "take a role that may write; or set it off there, or for this run alone in the environment: "
                "PGOPTIONS='-c default_transaction_read_only=off'"
            )
            found.append(Refusal(why, mend))
        if self.replication_role != "origin" and not self.may_replicate:
            why = (
                f"session_replication_role is {self.replication_role!r} here, so that no foreign key and no trigger acts, and "
                f"{self.role!r} may not set it back"
            )
            role = quote(self.role)
            mend = (
                f"ALTER ROLE {role} RESET session_replication_role (or ALTER DATABASE …, where it is set there), or "
                f"GRANT SET ON PARAMETER session_replication_role TO {role}"
            )
            found.append(Refusal(why, mend))
        return found + [
            Refusal(f"the server keeps {name} at {value!r}", "ask the DBA what forces it")
            for name, value in self.unheld.items()
        ]


class Refusal(NamedTuple):
    """A requirement that the session doesn't meet, and the remedy."""

    why: str
    mend: str


_BEFORE = """
SELECT current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,
       pg_backend_pid() <> %(pid)s AS pooled, current_user::text AS role,
       current_setting('default_transaction_read_only')::bool AS read_only,
       (SELECT source FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only') AS read_only_from,
       current_setting('session_replication_role') AS replication_role, {may_replicate} AS may_replicate,
       current_schemas(false)::text[] AS path,
       -- money is stored as a count of the smallest unit: with other decimals it would mean another amount
       CASE scale(1::money::numeric) WHEN 2 THEN 'C' ELSE current_setting('lc_monetary') END AS monetary,
       EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s) AS schema_there,
       ARRAY(SELECT DISTINCT n.nspname::text
             FROM (SELECT DISTINCT atttypid FROM pg_catalog.pg_attribute WHERE attnum > 0 AND atttypid >= 16384) AS used
             JOIN pg_catalog.pg_type t ON t.oid = used.atttypid
             JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_type'::regclass AND d.deptype = 'e'
                                        AND d.objid IN (t.oid, t.typelem, t.typbasetype)
             JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND has_schema_privilege(n.oid, 'USAGE')
             ORDER BY 1) AS extensions"""
_MAY_REPLICATE = {
    True: "has_parameter_privilege('session_replication_role', 'SET')",
    False: "current_setting('is_superuser')::bool",
}


def inherited(connection: Connection, version: tuple[int, ...], schema: str) -> Inherited:
    """Read the inherited settings, before any is set, and whether this schema exists."""
    raw: Any = connection.connection.driver_connection
    # What ends statements of this role would end these questions too, before anything could be set.
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        raw.execute(f"SET LOCAL {name} = 0")
    row = raw.execute(
        _BEFORE.format(may_replicate=_MAY_REPLICATE[version >= (15,)]), {"schema": schema, "pid": raw.info.backend_pid}
    ).fetchone()
    (
        encoding,
        standby,
        pooled,
        role,
        read_only,
        source,
        replication_role,
        may_replicate,
        path,
        monetary,
        there,
        extensions,
    ) = row
    return Inherited(
        encoding=encoding,
        read_only=read_only,
        read_only_from=_SOURCES.get(source, source),
        standby=standby,
        pooled=pooled,
        replication_role=replication_role,
        may_replicate=may_replicate,
        path=tuple(path),
        extensions=tuple(extensions),
        schema_there=there,
        role=role,
        monetary=monetary,
    )


_SOURCES = {
    "user": "the role",
    "database": "the database",
    "database user": "the role in this database",
    "client": "PGOPTIONS",
    "configuration file": "the server's configuration",
    "global": "all roles' settings",
}


def resolved_path(schema: str, before: Inherited, chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """The schemas to search: the author's choice, else the playbook's schema followed by those of ordinary sessions.

    If the playbook's schema is missing, only that one, so that no table of another schema is taken for its own.
    """
    wanted = chosen or ((schema, *before.path, *before.extensions) if before.schema_there else (schema,))
    return tuple(dict.fromkeys(one for one in wanted if one and one not in {_FIRST, _LAST}))
