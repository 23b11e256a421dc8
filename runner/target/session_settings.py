"""What a session with PostgreSQL is sent with, whatever role, database, environment or pooler put there before.

docs/session.md has the same table for people; a test keeps both in step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from steps.contract import Question, Value
from steps.sql.dialect import literal, quote

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

CLIENT_ENCODING = "UTF8"  # asked for while the connection is opened, since all that follows is written in it
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"  # whatever default_transaction_* say
# What ends statements of this role after a millisecond would end the one that sets all the rest.
UNTIMED: Question = ("SET LOCAL statement_timeout = 0", {})
IDLE = "15s"  # a writing transaction whose client is silent for so long is ended by the server, so that a stopped process can be fenced
_LAST = "pg_temp"  # not named, it would be searched first
_FIRST = "pg_catalog"  # not named, it is searched first


@dataclass(frozen=True)
class Setting:
    """One setting that changes what statements mean, or whether their session lives to their end."""

    name: str
    value: str
    since: int = 0  # PostgreSQL's version
    sql: str = ""  # how the value is found, where it depends on what is there


def _where_known(name: str, value: str) -> Setting:
    """One that came with a minor version, or was taken away by one: set where this server has it."""
    sql = (
        f"CASE WHEN current_setting('{name}', true) IS NULL THEN '{value}'"
        f" ELSE set_config('{name}', '{value}', {{local}}) END"
    )
    return Setting(name, value, sql=sql)


def _where_other(name: str, value: str, *, since: int = 0, privileged: bool = True) -> Setting:
    """One that is set only where it is something else: it costs much, or takes a right, and what can't be set is refused."""
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
    _where_other("timezone_abbreviations", "Default", privileged=False),  # setting it reads a file
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
    # Only a superuser may set it, and even to what it is already: so only where it is something else.
    Setting(
        "session_replication_role",
        "origin",
        sql="CASE current_setting('session_replication_role') WHEN 'origin' THEN 'origin'"
        " ELSE set_config('session_replication_role', 'origin', {local}) END",
    ),
    # Weaker than `local` would let a crash take back what the trail says is done.
    Setting(
        "synchronous_commit",
        "on",
        sql="CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', {local})"
        " ELSE current_setting('synchronous_commit') END",
    ),
)
# Outside of a transaction there is no BEGIN that says these.
OUTSIDE = (
    Setting("default_transaction_isolation", "read committed"),
    Setting("default_transaction_read_only", "off"),
    Setting("default_transaction_deferrable", "off"),
    Setting("idle_session_timeout", "0"),
)


@dataclass(frozen=True)
class SessionSettings:
    """What each transaction is sent with beside what is fixed; seconds, 0 for no limit."""

    application_name: str
    lock_s: float
    statement_s: float
    path: tuple[str, ...]
    version: tuple[int, ...] = ()
    idle: str = IDLE
    transaction_s: float = 0.0  # 17 on
    replication: bool = True  # whether this role may set session_replication_role
    monetary: str = "C"  # lc_monetary: the database's own, where it keeps other than two decimals


def to_set(settings: SessionSettings, *, local: bool = True, also: str = "") -> Question:
    """All settings in one SELECT; local to the transaction, so that a pooler can't hand them to somebody else."""
    values: dict[str, Value] = {
        "application_name": settings.application_name,
        "lock_timeout": f"{int(settings.lock_s * 1000)}ms",
        "statement_timeout": f"{int(settings.statement_s * 1000)}ms",
        "idle_in_transaction_session_timeout": settings.idle,
        "search_path": path_sql(settings.path),
    }
    if settings.transaction_s:
        # before 17 there is no such setting, but a transaction that only waits for us is ended there too
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
    """The fixed settings that the server doesn't take, with what it holds instead."""
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
    """The search_path that looks names up in these schemas: pg_catalog before them, temporary objects behind them."""
    return ", ".join([*(quote(one) for one in path if one not in {_FIRST, _LAST}), _LAST])


# ─── what was there before ──────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Inherited:
    """What the server says of a session as role, database, environment or pooler made it."""

    encoding: str = "UTF8"
    read_only: bool = False
    read_only_from: str = ""
    standby: bool = False
    pooled: bool = False  # whether a pooler stands between us and the server process that works for us
    replication_role: str = "origin"
    may_replicate: bool = True  # whether this role may set session_replication_role
    path: tuple[str, ...] = ()  # the schemas of its own search_path that are there
    extensions: tuple[str, ...] = ()  # schemas of extensions whose types some table uses
    schema_there: bool = True  # the playbook's
    role: str = ""
    monetary: str = "C"  # lc_monetary with which amounts mean what they mean here
    unheld: Mapping[str, str] = field(
        default_factory=dict
    )  # fixed settings that the server didn't take, and what holds

    def refusals(self) -> list[Refusal]:
        """Why nothing can be changed through this session."""
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
    """Something that a session needs and can't have, and how to mend it."""

    why: str
    mend: str


_BEFORE = """
SELECT current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,
       pg_backend_pid() <> %(pid)s AS pooled, current_user::text AS role,
       current_setting('default_transaction_read_only')::bool AS read_only,
       (SELECT source FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only') AS read_only_from,
       current_setting('session_replication_role') AS replication_role, {may_replicate} AS may_replicate,
       current_schemas(false)::text[] AS path,
       -- an amount is a number of the smallest coins: with other decimals it would mean another sum
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
    """Ask what this session was given, before anything is set on it, and whether this schema is there."""
    raw: Any = connection.connection.driver_connection
    # What ends statements of this role would end these questions too, before anything could be set.
    raw.execute(
        "SELECT set_config(name, '0', true) FROM unnest(ARRAY['statement_timeout', 'lock_timeout', "
        "'idle_in_transaction_session_timeout']) AS name"
    )
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
    """Where names without a schema are looked up: as the author chose, else what the database's own sessions see.

    Where the playbook's schema is missing, nothing else may be taken for it.
    """
    wanted = chosen or ((schema, *before.path, *before.extensions) if before.schema_there else (schema,))
    return tuple(dict.fromkeys(one for one in wanted if one and one not in {_FIRST, _LAST}))


# ─── texts that the database's encoding lacks ───────────────────────────────────────────────────────────────────────
def writable(text: str, encoding: str) -> str:
    """The text with what the database's encoding lacks written as JSON writes it: `\\u0141`."""
    if encoding in {"UTF8", "SQL_ASCII"} or text.isascii():
        return text
    codec = _codec(encoding)
    return "".join(sign if _fits(sign, codec) else _escaped(sign) for sign in text)


def _codec(encoding: str) -> str:
    """Python's name of a server's encoding; what Python doesn't know is taken for ASCII, which all of them contain."""
    import codecs

    name = f"cp{encoding[3:]}" if encoding.startswith("WIN") else encoding.replace("KOI8", "KOI8_")
    try:
        return codecs.lookup(name.replace("_", "-")).name
    except LookupError:
        return "ascii"


def _fits(sign: str, codec: str) -> bool:
    try:
        sign.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(sign: str) -> str:
    pairs = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pairs[n]:02x}{pairs[n + 1]:02x}" for n in range(0, len(pairs), 2))


def readable(text: str) -> str:
    """What `writable` made of a text, as it was; for comparing what a ledger has with what a trail has."""
    return re.sub(r"(?:\\u[0-9a-f]{4})+", _unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    pairs = bytes.fromhex(found[0].replace("\\u", ""))
    return pairs.decode("utf-16-be", "surrogatepass")
