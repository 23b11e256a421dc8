"""A database's whole schema as the catalogue tells it, and its rows as one checksum, to be compared with another time."""

from __future__ import annotations

import hashlib

from databases import Database

POSTGRESQL = """
    SELECT 'column', attrelid::regclass::text, concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, attgenerated,
           pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT 'index', indrelid::regclass::text, pg_get_indexdef(indexrelid) || ' ' || indisvalid
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid) || ' ' || convalidated
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    UNION ALL SELECT 'trigger', tgrelid::regclass::text, pg_get_triggerdef(pg_trigger.oid) || ' ' || tgenabled::text
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal"""
SQLITE = """
    SELECT 'column', m.name, c.name || ' ' || c.type || ' ' || c."notnull" || ' ' || coalesce(c.dflt_value, '') || ' ' || c.pk
    FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS c
    WHERE m.type = 'table' AND m.name NOT LIKE 'runbook%' AND m.name NOT LIKE 'sqlite%'
    UNION ALL SELECT 'key', m.name, k."from" || ' ' || k."table" || ' ' || k."to"
    FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS k WHERE m.type = 'table'
    UNION ALL SELECT type, tbl_name, coalesce(sql, name) FROM sqlite_master
    WHERE type <> 'table' AND tbl_name NOT LIKE 'runbook%'"""


def definitions(database: Database) -> list[tuple[str, str, str]]:
    """All of the schema `public` but the columns' order, which no way back restores."""
    return sorted(database.rows(POSTGRESQL if database.server else SQLITE))


def contents(database: Database, table: str, key: str) -> str:
    """A checksum of all rows with all columns, whatever the columns' order."""
    if database.server:  # as texts: json may hold what no other type takes
        [row] = database.rows("SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = to_regclass(%s) "
                              "AND attnum > 0 AND NOT attisdropped", [table])  # fmt: skip
        texts = ", ".join(f"'{name}', {name}::text" for name in sorted(row[0]))
        return database.value(f"SELECT md5(string_agg(ROW({texts})::text, '' ORDER BY {key})) FROM {table}")
    names = sorted(row[1] for row in database.rows(f"PRAGMA table_info({table})"))
    rows = database.rows(f"SELECT {', '.join(names)} FROM {table} ORDER BY {key}")
    return hashlib.md5(repr((names, rows)).encode()).hexdigest()
