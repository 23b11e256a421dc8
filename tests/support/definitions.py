"""A database's whole schema by definition: equal where nobody could tell the two apart but by oids and the order of columns."""

from __future__ import annotations

from databases import Database

OURS = "'runbook', 'runbook_kept', 'information_schema'"
HERE = f"n.nspname NOT IN ({OURS}) AND n.nspname NOT LIKE 'pg\\_%'"
RELATION = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
POSTGRESQL = {
    "relations": f"""SELECT c.oid::regclass::text, c.relkind, c.relowner::regrole::text, c.reloptions::text, c.relreplident,
        obj_description(c.oid, 'pg_class'), ARRAY(SELECT x::text FROM unnest(coalesce(c.relacl, acldefault('r', c.relowner))) x ORDER BY 1),
        CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END
        FROM {RELATION} WHERE {HERE} AND c.relkind <> 'i'""",
    "columns": f"""SELECT c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
        a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation::text, a.attacl::text,
        col_description(c.oid, a.attnum),
        CASE WHEN a.attstattarget >= 0 THEN a.attstattarget END, a.attoptions::text, a.attstorage, a.attcompression
        FROM {RELATION} JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE {HERE} AND c.relkind NOT IN ('i', 'I')""",
    "constraints": f"""SELECT o.conrelid::regclass::text, o.conname, pg_get_constraintdef(o.oid), o.convalidated,
        obj_description(o.oid, 'pg_constraint') FROM {RELATION} JOIN pg_constraint o ON o.conrelid = c.oid WHERE {HERE}""",
    "indexes": f"""SELECT pg_get_indexdef(c.oid), i.indisvalid, i.indisready, i.indisprimary, i.indisreplident, i.indisclustered,
        ARRAY(SELECT coalesce(a.attstattarget, -1) FROM pg_attribute a WHERE a.attrelid = c.oid ORDER BY a.attnum),
        obj_description(c.oid, 'pg_class') FROM {RELATION} JOIN pg_index i ON i.indexrelid = c.oid WHERE {HERE}""",
    "triggers": f"""SELECT pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger')
        FROM {RELATION} JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal WHERE {HERE}""",
    "rules": f"""SELECT pg_get_ruledef(r.oid), obj_description(r.oid, 'pg_rewrite') FROM {RELATION} JOIN pg_rewrite r ON r.ev_class = c.oid
        WHERE {HERE} AND r.ev_type <> '1'""",
    "policies": f"""SELECT c.oid::regclass::text, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[]::text,
        pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid), obj_description(p.oid, 'pg_policy')
        FROM {RELATION} JOIN pg_policy p ON p.polrelid = c.oid WHERE {HERE}""",
    "statistics": f"""SELECT pg_get_statisticsobjdef(s.oid), coalesce(s.stxstattarget, -1),
        obj_description(s.oid, 'pg_statistic_ext') FROM {RELATION} JOIN pg_statistic_ext s ON s.stxrelid = c.oid
        WHERE {HERE}""",
    "publications": "SELECT pubname, prrelid::regclass::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid",
}
SQLITE = {
    "columns": """SELECT m.name, x.name, lower(x.type), x."notnull", x.dflt_value, x.pk, x.hidden FROM sqlite_master m
        JOIN pragma_table_xinfo(m.name) x WHERE m.type = 'table' AND m.name NOT LIKE 'runbook%' AND m.name NOT LIKE 'sqlite%'""",
    "keys": """SELECT m.name, f."table", f."from", f."to", f.on_delete FROM sqlite_master m
        JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table' AND m.name NOT LIKE 'runbook%' AND m.name NOT LIKE 'sqlite%'""",
    "others": "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type <> 'table' AND tbl_name NOT LIKE 'runbook%'",
}


def schema(database: Database) -> dict[str, list[tuple]]:
    """Kind of object → its definitions, without Runbook's own tables and what it keeps."""
    queries = POSTGRESQL if database.server else SQLITE
    return {name: sorted(database.rows(sql), key=repr) for name, sql in queries.items()}


def differences(before: dict[str, list[tuple]], after: dict[str, list[tuple]]) -> list[str]:
    """What of the one isn't in the other, in words."""
    gone = [f"- {name}: {one}" for name, rows in before.items() for one in rows if one not in after[name]]
    return gone + [f"+ {name}: {one}" for name, rows in after.items() for one in rows if one not in before[name]]
