"""Whether a ledger can be trusted and used: its owners, the code attached to its tables, and its version. And its migration.

A trigger, rule or default on these tables runs with the rights of whoever runs a playbook. Somebody who may create
objects could plant a ledger with such code, so nothing is written before this check.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from steps.contract import Look, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger import tables
from steps.ledger.tables import SCHEMA, VERSION, table


class Inconvertible(Exception):
    """A table of another layout has rows that this version can't convert."""


@dataclass(frozen=True)
class Form:
    """The state of the ledger on a target.

    there: whether any of it exists. version: 0 where none does. planted: reasons not to trust it. outdated: what `target init`
    will migrate. foreign: columns and keys that differ from today's definition and can't be migrated while there are rows.
    """

    there: bool
    version: int = 0
    planted: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.there and self.version == VERSION and not (self.planted or self.outdated or self.foreign)


_OWNERS = """
SELECT what, pg_catalog.pg_get_userbyid(owner)::text AS owner, pg_catalog.pg_get_userbyid(d.datdba)::text AS datdba FROM (
  SELECT 'schema runbook' AS what, nspowner AS owner FROM pg_catalog.pg_namespace WHERE nspname = 'runbook'
  UNION ALL
  SELECT 'runbook.' || c.relname, c.relowner FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'runbook' AND c.relname = ANY(:names)) AS one
JOIN pg_catalog.pg_database d ON d.datname = current_database()
JOIN pg_catalog.pg_roles r ON r.oid = one.owner
WHERE NOT r.rolsuper AND r.rolname NOT IN (current_user, session_user) AND r.oid <> d.datdba ORDER BY 1"""

# All that would run code as the user who reads or writes a row. Defaults are allowed only as constants and the server's clock,
# by their text and, since a search_path could put another function behind a name, by the functions that they depend on.
_HOOKS = r"""
WITH ours AS (SELECT c.oid, c.relname, c.relkind, c.relrowsecurity, c.relhasrules
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = 'runbook' AND c.relname = ANY(:names))
SELECT 'the trigger ' || quote_ident(t.tgname) || ' on runbook.' || o.relname AS hook
FROM pg_catalog.pg_trigger t JOIN ours o ON o.oid = t.tgrelid
UNION ALL
SELECT 'the rule ' || quote_ident(r.rulename) || ' on runbook.' || o.relname
FROM pg_catalog.pg_rewrite r JOIN ours o ON o.oid = r.ev_class
UNION ALL
SELECT 'row security on runbook.' || relname FROM ours WHERE relrowsecurity
UNION ALL
SELECT 'runbook.' || relname || ' is no ordinary table' FROM ours WHERE relkind <> 'r'
UNION ALL
SELECT 'inheritance of runbook.' || o.relname FROM pg_catalog.pg_inherits i JOIN ours o ON o.oid IN (i.inhrelid, i.inhparent)
UNION ALL
SELECT 'the constraint ' || quote_ident(k.conname) || ' on runbook.' || o.relname
FROM pg_catalog.pg_constraint k JOIN ours o ON o.oid = k.conrelid WHERE k.contype NOT IN ('p', 'u', 'n')
UNION ALL
SELECT 'the index ' || quote_ident(x.relname) || ' on runbook.' || o.relname
FROM pg_catalog.pg_index i JOIN ours o ON o.oid = i.indrelid JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
UNION ALL
SELECT 'the column runbook.' || o.relname || '.' || a.attname || ' (' || pg_catalog.pg_get_expr(d.adbin, d.adrelid) || ')'
FROM pg_catalog.pg_attrdef d JOIN ours o ON o.oid = d.adrelid
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE a.attgenerated <> ''
   OR pg_catalog.pg_get_expr(d.adbin, d.adrelid) !~ '^(clock_timestamp\(\)|now\(\)|CURRENT_TIMESTAMP|[0-9]+|''[^'']*''(::[a-z ]+)?)$'
   OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend e JOIN pg_catalog.pg_proc f ON e.refclassid = 'pg_proc'::regclass AND f.oid = e.refobjid
              WHERE e.classid = 'pg_attrdef'::regclass AND e.objid = d.oid AND f.pronamespace <> 'pg_catalog'::regnamespace)
ORDER BY 1"""

_COLUMNS = """
SELECT c.relname::text AS tab, a.attname::text AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS needed,
       a.atthasdef OR a.attidentity <> '' AS given
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'runbook' AND c.relkind = 'r' AND c.relname = ANY(:names) AND a.attnum > 0 AND NOT a.attisdropped"""

_KEYS = """
SELECT c.relname::text AS tab, pg_catalog.pg_get_constraintdef(k.oid) AS words
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'runbook' AND c.relname = ANY(:names) AND k.contype IN ('p', 'u')"""

_SQLITE_COLUMNS = f"""
SELECT substr(m.name, {len(SCHEMA) + 2}) AS tab, i.name, lower(i.type) AS type, i."notnull" = 1 AS needed, i.dflt_value IS NOT NULL AS given
FROM sqlite_master AS m, pragma_table_info(m.name) AS i
WHERE m.type = 'table' AND m.name IN (SELECT '{SCHEMA}_' || value FROM json_each(:names))"""

# An integer that is the primary key has no index: it is the row's own number.
_SQLITE_KEYS = f"""
WITH ours AS (SELECT name, substr(name, {len(SCHEMA) + 2}) AS tab FROM sqlite_master
              WHERE type = 'table' AND name IN (SELECT '{SCHEMA}_' || value FROM json_each(:names)))
SELECT o.tab, CASE l.origin WHEN 'pk' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END AS kind, l.seq, i.seqno, i.name AS col
FROM ours AS o, pragma_index_list(o.name) AS l, pragma_index_info(l.name) AS i WHERE l."unique" = 1 AND l.origin IN ('pk', 'u')
UNION ALL
SELECT o.tab, 'PRIMARY KEY', -1, 0, i.name FROM ours AS o, pragma_table_info(o.name) AS i WHERE i.pk = 1 AND lower(i.type) = 'integer'
ORDER BY 1, 3, 4"""  # an integer that is the primary key has no index: it is the row's own number

_LONG = {"timestamptz": "timestamp with time zone"}  # our DDL's abbreviation → the name that format_type returns


def form(look: Look) -> Form:
    """Inspect the ledger of this target."""
    found, former = tables.tables(look), tables.former(look)
    planted = _planted(look, [*tables.columns(look.dialect), *tables.FORMER.values()])
    if not found and not former and not (planted and look.dialect is Dialect.POSTGRESQL and _has_schema(look)):
        return Form(there=False)
    if planted:
        return Form(there=True, version=1, planted=planted)
    version = _version(look, found)
    renamed = [f"{table(old, look.dialect)} is {table(name, look.dialect)} today" for name, old in former.items()]
    wanted = [
        name
        for name in tables.columns(look.dialect)
        if name not in found and name not in former and name not in tables.ON_DEMAND
    ]
    missing = [f"{table(name, look.dialect)} is missing" for name in wanted]
    missing_columns, foreign = _differences(look, found)
    return Form(there=True, version=version, outdated=(*renamed, *missing, *missing_columns), foreign=foreign)


def _has_schema(look: Look) -> bool:
    return bool(look.rows("SELECT 1 AS one FROM pg_catalog.pg_namespace WHERE nspname = 'runbook'"))


def _version(look: Look, found: set[str]) -> int:
    if "meta" not in found:
        return 1
    rows = look.rows(f"SELECT value FROM {table('meta', look.dialect)} WHERE name = 'version'")
    return int(rows[0].text("value")) if rows and rows[0].text("value").isdigit() else 1


def _planted(look: Look, names: list[str]) -> tuple[str, ...]:
    if look.dialect is Dialect.SQLITE:
        listed = ", ".join(f"'{table(name, look.dialect)}'" for name in names)
        sql = f"SELECT type, name, tbl_name AS tab FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({listed})"
        views = f"SELECT name FROM sqlite_master WHERE type = 'view' AND name IN ({listed})"
        return tuple(
            [f"the trigger {row.text('name')} on {row.text('tab')}" for row in look.rows(sql)]
            + [f"{row.text('name')} is no ordinary table" for row in look.rows(views)]
        )
    owners = [
        f"{row.text('what')} belongs to {row.text('owner')}, who is neither a superuser, nor this database's owner "
        f"({row.text('datdba')}), nor the role at work"
        for row in look.rows(_OWNERS, {"names": [*names]})
    ]
    return tuple(owners[:1] + [row.text("hook") for row in look.rows(_HOOKS, {"names": [*names]})])


# ─── the form of the tables ─────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class _Column:
    type: str
    needed: bool = False  # NOT NULL, and nothing gives a value


def _differences(look: Look, found: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(missing columns; columns and keys that differ from ours), each as an operator reads it."""
    there = _columns_there(look, sorted(found))
    keys = _keys_there(look, sorted(found))
    missing: list[str] = []
    foreign: list[str] = []
    for name in sorted(found):
        shown = table(name, look.dialect)
        wanted = wanted_columns(look.dialect, name)
        for column, type_ in wanted.items():
            seen = there[name].get(column)
            if seen is None:
                missing.append(f"{shown}.{column} is missing")
            elif seen.type != type_:
                foreign.append(f"{shown}.{column} is {seen.type}, not {type_}")
        foreign += [
            f"{shown}.{column} is not of ours"
            for column, one in there[name].items()
            if column not in wanted and one.needed
        ]
        foreign += [f"{shown} has no {key}" for key in _wanted_keys(look.dialect, name) if key not in keys[name]]
    return tuple(missing), tuple(foreign)


def _columns_there(look: Look, names: list[str]) -> dict[str, dict[str, _Column]]:
    found: dict[str, dict[str, _Column]] = {name: {} for name in names}
    sql = _COLUMNS if look.dialect is Dialect.POSTGRESQL else _SQLITE_COLUMNS
    for row in look.rows(sql, _named(look.dialect, names)):
        needed = row.flag("needed") and not row.flag("given")
        found[row.text("tab")][row.text("name")] = _Column(row.text("type"), needed)
    return found


def _keys_there(look: Look, names: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in names}
    if look.dialect is Dialect.POSTGRESQL:
        for row in look.rows(_KEYS, _named(look.dialect, names)):
            found[row.text("tab")].add(row.text("words"))
        return found
    keys: dict[tuple[str, str, int], list[str]] = {}
    for row in look.rows(_SQLITE_KEYS, _named(look.dialect, names)):
        keys.setdefault((row.text("tab"), row.text("kind"), row.integer("seq")), []).append(row.text("col"))
    for (name, kind, _), cols in keys.items():
        found[name].add(f"{kind} ({', '.join(cols)})")
    return found


def _named(dialect: Dialect, names: list[str]) -> dict[str, Value]:
    return {"names": [*names] if dialect is Dialect.POSTGRESQL else json.dumps(names)}


@functools.cache
def _parts(dialect: Dialect, name: str) -> list[str]:
    """The column and constraint definitions of one of our tables, split at the commas outside of parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", tables.columns(dialect)[name])]


_COLUMN = re.compile(r"([a-z_]+) (double precision|\S+)(.*)")


@functools.cache
def wanted_columns(dialect: Dialect, name: str) -> Mapping[str, str]:
    """A table's columns and their types, as the database calls them."""
    found = {}
    for part in _parts(dialect, name):
        match = _COLUMN.fullmatch(part)
        if match:
            found[match[1]] = _LONG.get(match[2], match[2])
    return found


@functools.cache
def _wanted_keys(dialect: Dialect, name: str) -> list[str]:
    found = []
    for part in _parts(dialect, name):
        if part.startswith(("PRIMARY KEY", "UNIQUE")):
            found.append(part)
        elif "PRIMARY KEY" in part:
            found.append(f"PRIMARY KEY ({part.partition(' ')[0]})")
    return found


# ─── migration ──────────────────────────────────────────────────────────────────────────────────────────────────────
def keep_to_itself(work: Work) -> None:
    """Lock out lease take-overs and other migrations until this transaction ends. SQLite has only one writer anyway.

    SHARE ROW EXCLUSIVE conflicts with itself and with writes, and lets others read who holds the lease.
    """
    if work.dialect is Dialect.POSTGRESQL and "lease" in tables.tables(work):
        work.execute(f"LOCK TABLE {table('lease', work.dialect)} IN SHARE ROW EXCLUSIVE MODE")


def migrate(work: Work) -> list[str]:
    """Create the ledger, or migrate an earlier version of it, keeping its rows; returns what was done, in words.

    Raises Inconvertible where rows can't be converted; the caller must then roll the transaction back.
    """
    done = [_rename(work, name, old) for name, old in tables.former(work).items()]
    found, there = form(work), tables.tables(work)
    rebuilt = sorted(name for name in there if any(_concerns(one, name, work.dialect) for one in found.foreign))
    for name in rebuilt:
        if work.rows(f"SELECT 1 AS one FROM {table(name, work.dialect)} LIMIT 1"):
            raise Inconvertible(next(one for one in found.foreign if _concerns(one, name, work.dialect)))
    for name in rebuilt:
        work.execute(f"DROP TABLE {table(name, work.dialect)}")
        done.append(f"made {table(name, work.dialect)} in today's form (it had no rows)")
    there_now = there - set(rebuilt)
    for name in sorted(there_now):
        done += _add_columns(work, name)
    tables.create(work)
    done += [f"made {table(name, work.dialect)}" for name in tables.columns(work.dialect) if name not in there]
    for was, now in tables.FORMER_STATES.items():
        work.execute(
            f"UPDATE {table('step', work.dialect)} SET state = :now WHERE state = :was", {"was": was, "now": now}
        )
    work.execute(f"UPDATE {table('meta', work.dialect)} SET value = '{VERSION}' WHERE name = 'version'")
    return done


# A constraint's name begins with its table's name, and error messages quote it: it is renamed along with the table.
_NAMED_AFTER = """
SELECT quote_ident(k.conname) AS was, quote_ident(CAST(:name AS text) || substr(k.conname, length(:old) + 1)) AS wanted
FROM pg_catalog.pg_constraint k WHERE k.conrelid = CAST(:table AS regclass) AND starts_with(k.conname, :old || '_')
ORDER BY k.conname"""


def _rename(work: Work, name: str, old: str) -> str:
    """Give a table its name of today, with its constraints and its sequence.

    Both names may exist, where somebody ran the printed DDL beside an old ledger: then the empty one of the two is dropped.
    """
    now, before = table(name, work.dialect), table(old, work.dialect)
    if name in tables.tables(work):
        empty = [one for one in (now, before) if not work.rows(f"SELECT 1 AS one FROM {one} LIMIT 1")]
        if not empty:
            raise Inconvertible(f"{before} stands beside {now}")
        work.execute(f"DROP TABLE {empty[0]}")
        if empty[0] == before:
            return f"dropped {before} (it had no rows)"
    bare = name if work.dialect is Dialect.POSTGRESQL else now
    work.execute(f"ALTER TABLE {before} RENAME TO {bare}")
    if work.dialect is Dialect.POSTGRESQL:
        for row in work.rows(_NAMED_AFTER, {"name": name, "old": old, "table": now}):
            work.execute(f"ALTER TABLE {now} RENAME CONSTRAINT {row.text('was')} TO {row.text('wanted')}")
        if "seq" in wanted_columns(work.dialect, name):
            work.execute(f"ALTER SEQUENCE {SCHEMA}.{old}_seq_seq RENAME TO {name}_seq_seq")
    return f"renamed {before} to {now}"


def _concerns(fault: str, name: str, dialect: Dialect) -> bool:
    return re.match(rf"{re.escape(table(name, dialect))}[. ]", fault) is not None


def _add_columns(work: Work, name: str) -> list[str]:
    """Add the columns that an earlier version lacks; a NOT NULL one without a default gets 0 or '' in old rows."""
    seen, done = _columns_there(work, [name])[name], []
    for part in _parts(work.dialect, name):
        match = _COLUMN.fullmatch(part)
        if match and match[1] in wanted_columns(work.dialect, name) and match[1] not in seen:
            empty = "0" if match[2] in {"bigint", "integer", "double", "double precision"} else "''"
            usual = f" DEFAULT {empty}" if "NOT NULL" in part and "DEFAULT" not in part else ""
            definition = part + usual
            # SQLite's ADD COLUMN takes no default in parentheses
            if work.dialect is Dialect.SQLITE and "DEFAULT (" in part:
                definition = f"{match[1]} {match[2]}"
            work.execute(f"ALTER TABLE {table(name, work.dialect)} ADD COLUMN {definition}")
            done.append(f"added {table(name, work.dialect)}.{match[1]}")
    return done


def remedy(dialect: Dialect) -> str:
    """What a DBA should do about a ledger that somebody else has planted."""
    if dialect is Dialect.SQLITE:
        return "look at what is planted, drop it, then do it again"
    return (
        f"look into schema {SCHEMA}; where it is your own, drop what hangs on its tables, and ALTER SCHEMA and ALTER TABLE … OWNER TO "
        f"a role that may be trusted; where it isn't: ALTER SCHEMA {SCHEMA} RENAME TO {SCHEMA}_planted, then runbook target init"
    )
