-- Catalogue queries with the same result columns on PostgreSQL and SQLite. Each begins with a line "-- name.dialect --".
-- Values are bound; {schema} is replaced by the quoted schema, for SQLite's own tables, whose names can't be bound.

-- relation.postgresql --
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name,
       CASE c.relkind WHEN 'r' THEN CASE WHEN c.relispartition THEN 'partition' ELSE 'table' END
                      WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                      WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index'
                      WHEN 'I' THEN 'partitioned index' ELSE 'type' END AS kind,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END AS estimated_rows,
       coalesce((SELECT sum(pg_total_relation_size(p.relid)) FROM pg_partition_tree(c.oid) p),
                pg_total_relation_size(c.oid))::bigint AS bytes,
       pg_has_role(c.relowner, 'USAGE') AS owned, pg_get_userbyid(c.relowner)::text AS owner,
       CASE c.relreplident WHEN 'd' THEN 'default' WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' ELSE 'index' END
         AS replica_identity,
       obj_description(c.oid, 'pg_class') AS comment,
       ARRAY(SELECT x.privilege_type || CASE WHEN x.is_grantable THEN '*' ELSE '' END || '='
                    || coalesce(r.rolname::text, '')
             FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee ORDER BY 1) AS grants
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = :table

-- relation.sqlite --
SELECT NULL AS oid, l.schema AS schema, l.name AS name,
       CASE l.type WHEN 'virtual' THEN 'virtual table' WHEN 'shadow' THEN 'shadow table' ELSE l.type END AS kind,
       NULL AS estimated_rows, NULL AS bytes, 1 AS owned, '' AS owner, 'default' AS replica_identity, NULL AS comment,
       '[]' AS grants
FROM pragma_table_list l WHERE l.schema = :schema COLLATE NOCASE AND l.name = :table COLLATE NOCASE

-- estimate.sqlite --
SELECT stat FROM {schema}.sqlite_stat1 WHERE tbl = :table COLLATE NOCASE AND stat IS NOT NULL LIMIT 1

-- columns.postgresql --
SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid
         AND o.contype = 'n' AND o.conkey = ARRAY[a.attnum] AND NOT o.convalidated) AS not_null,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default_value,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generated,
       CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' ELSE '' END AS identity,
       a.attnum AS position, col_description(c.oid, a.attnum) AS comment,
       CASE WHEN a.attcollation <> t.typcollation
            THEN (SELECT quote_ident(k.nspname) || '.' || quote_ident(o.collname)
                  FROM pg_catalog.pg_collation o JOIN pg_catalog.pg_namespace k ON k.oid = o.collnamespace
                  WHERE o.oid = a.attcollation) END AS collation,
       array_remove(ARRAY[
         CASE WHEN a.attstattarget >= 0 THEN 'SET STATISTICS ' || a.attstattarget END,
         CASE WHEN a.attoptions IS NOT NULL THEN 'SET (' || array_to_string(a.attoptions, ', ') || ')' END,
         CASE WHEN a.attstorage <> t.typstorage THEN 'SET STORAGE ' || CASE a.attstorage WHEN 'p' THEN 'PLAIN'
              WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END,
         CASE a.attcompression WHEN 'p' THEN 'SET COMPRESSION pglz' WHEN 'l' THEN 'SET COMPRESSION lz4' END], NULL) AS settings,
       ARRAY(SELECT x.privilege_type || CASE WHEN x.is_grantable THEN '*' ELSE '' END || '='
                    || coalesce(r.rolname::text, '')
             FROM aclexplode(a.attacl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee ORDER BY 1) AS grants
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE n.nspname = :schema AND c.relname = :table ORDER BY a.attnum

-- columns.sqlite --
SELECT name, lower(type) AS type, "notnull" AS not_null, dflt_value AS default_value,
       CASE hidden WHEN 2 THEN 'virtual' WHEN 3 THEN 'stored' END AS generated, '' AS identity,
       cid + 1 AS position, NULL AS comment, NULL AS collation, '[]' AS settings, '[]' AS grants
FROM pragma_table_xinfo(:table, :schema) WHERE hidden <> 1 ORDER BY cid

-- indexes.postgresql --
SELECT x.oid::bigint AS oid, n.nspname::text AS schema, x.relname::text AS name, c.relname::text AS table_name,
       m.amname::text AS method, i.indisunique AS is_unique, i.indisprimary AS is_primary, i.indisvalid AS valid,
       i.indisready AS ready, i.indisreplident AS replica_identity, x.relkind = 'I' AS partitioned,
       pg_get_indexdef(x.oid) AS definition,
       substr(pg_get_indexdef(x.oid), length(format('CREATE %sINDEX %I ON %s%I.%I ',
         CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, x.relname,
         CASE WHEN x.relkind = 'I' THEN 'ONLY ' ELSE '' END, n.nspname, c.relname)) + 1) AS body,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       pg_relation_size(x.oid) AS bytes, obj_description(x.oid, 'pg_class') AS comment,
       (SELECT o.conname::text FROM pg_catalog.pg_constraint o
        WHERE o.conindid = x.oid AND o.contype IN ('p', 'u', 'x') LIMIT 1) AS constraint_name,
       ARRAY(SELECT coalesce(a.attname::text, pg_get_indexdef(x.oid, k.n, true))
             FROM generate_series(1, i.indnkeyatts) AS k(n)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n - 1]
                                                AND a.attnum <> 0 ORDER BY k.n) AS columns,
       i.indnatts = i.indnkeyatts AND pg_get_indexdef(x.oid) NOT LIKE '% NULLS NOT DISTINCT%'
         AND NOT EXISTS (SELECT 1 FROM unnest(i.indoption::int2[]) AS o(bits) WHERE o.bits <> 0)
         AND NOT EXISTS (SELECT 1 FROM unnest(i.indclass::oid[]) AS k(class)
                         JOIN pg_catalog.pg_opclass p ON p.oid = k.class WHERE NOT p.opcdefault)
         AND NOT EXISTS (SELECT 1 FROM generate_series(0, i.indnkeyatts - 1) AS k(n)
                         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n]
                         WHERE a.attnum <> 0 AND a.attcollation <> i.indcollation[k.n]) AS plain
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
JOIN pg_catalog.pg_am m ON m.oid = x.relam
WHERE n.nspname = :schema AND (c.relname = :table OR x.relname = :index) ORDER BY x.relname

-- touched_columns.postgresql --
-- For each btree index none of whose columns is in :fill, one of its columns that can be set to itself (see
-- catalog.touched_columns). Excluded: columns of a unique index (the UPDATE would take a stronger row lock), of a trigger's
-- UPDATE OF list or of a stored generated column's expression (they would run for nothing), and columns that can't be set.
SELECT DISTINCT ON (i.indexrelid) a.attname::text AS name
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid AND x.relam = 403 -- btree
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0
                               AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])
WHERE i.indrelid = CAST(:oid AS oid) AND i.indisready AND NOT i.indisunique
  AND a.attgenerated = '' AND a.attidentity <> 'a' AND has_column_privilege(a.attrelid, a.attnum, 'UPDATE')
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute f WHERE f.attrelid = i.indrelid AND f.attname = ANY(:fill)
                  AND f.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1]))
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_index u
                  WHERE u.indrelid = i.indrelid AND u.indisunique AND a.attnum = ANY(u.indkey::int2[]))
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t
                  WHERE t.tgrelid = i.indrelid AND NOT t.tgisinternal AND a.attnum = ANY(t.tgattr::int2[]))
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute g JOIN pg_catalog.pg_attrdef f
                  ON f.adrelid = g.attrelid AND f.adnum = g.attnum JOIN pg_catalog.pg_depend d
                  ON d.objid = f.oid OR (d.objid = g.attrelid AND d.objsubid = g.attnum)
                  WHERE g.attrelid = i.indrelid AND g.attgenerated = 's'
                  AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)
ORDER BY i.indexrelid, array_position(i.indkey::int2[], a.attnum)

-- indexes.sqlite --
SELECT NULL AS oid, :schema AS schema, m.name AS name, m.tbl_name AS table_name, 'btree' AS method,
       l."unique" AS is_unique, l.origin = 'pk' AS is_primary, 1 AS valid, 1 AS ready, 0 AS replica_identity,
       0 AS partitioned, coalesce(m.sql, '') AS definition, '' AS body, CASE WHEN l.partial THEN m.sql END AS predicate,
       NULL AS bytes, NULL AS comment, CASE WHEN l.origin <> 'c' THEN m.name END AS constraint_name,
       (SELECT json_group_array(coalesce(k.name, '(expression)'))
        FROM (SELECT name FROM pragma_index_xinfo(m.name, :schema) WHERE "key" ORDER BY seqno) k) AS columns,
       NOT EXISTS (SELECT 1 FROM pragma_index_xinfo(m.name, :schema) WHERE "key" AND "desc") AS plain
FROM {schema}.sqlite_master m JOIN pragma_index_list(m.tbl_name, :schema) l ON l.name = m.name
WHERE m.type = 'index' AND (m.tbl_name = :table COLLATE NOCASE OR m.name = :index COLLATE NOCASE) ORDER BY m.name

-- constraints.postgresql --
SELECT o.conname::text AS name,
       CASE o.contype WHEN 'c' THEN 'check' WHEN 'f' THEN 'foreign key' WHEN 'p' THEN 'primary key'
                      WHEN 'u' THEN 'unique' ELSE 'exclusion' END AS kind,
       pg_get_constraintdef(o.oid) AS definition, o.convalidated AS validated,
       pg_get_expr(o.conbin, o.conrelid) AS expression,
       ARRAY(SELECT a.attname::text FROM unnest(o.conkey) WITH ORDINALITY AS k(num, n)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.num ORDER BY k.n) AS columns,
       fn.nspname::text AS foreign_schema, f.relname::text AS foreign_table,
       ARRAY(SELECT a.attname::text FROM unnest(o.confkey) WITH ORDINALITY AS k(num, n)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.num ORDER BY k.n)
         AS foreign_columns,
       CASE o.confdeltype WHEN 'r' THEN 'restrict' WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set null'
                          WHEN 'd' THEN 'set default' ELSE 'no action' END AS on_delete,
       CASE o.confupdtype WHEN 'r' THEN 'restrict' WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set null'
                          WHEN 'd' THEN 'set default' ELSE 'no action' END AS on_update,
       concat_ws(', ', CASE o.confmatchtype WHEN 'f' THEN 'MATCH FULL' WHEN 'p' THEN 'MATCH PARTIAL' END,
         CASE WHEN o.condeferred THEN 'INITIALLY DEFERRED' WHEN o.condeferrable THEN 'DEFERRABLE' END,
         CASE WHEN o.contype = 'c' AND o.connoinherit THEN 'NO INHERIT' END,
         CASE WHEN to_jsonb(o) ->> 'conenforced' = 'false' THEN 'NOT ENFORCED' END,
         CASE WHEN to_jsonb(o) ->> 'conperiod' = 'true' THEN 'PERIOD' END,
         CASE WHEN to_jsonb(o) ->> 'confdelsetcols' IS NOT NULL THEN 'ON DELETE for some columns' END) AS special,
       obj_description(o.oid, 'pg_constraint') AS comment
FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_class c ON c.oid = o.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class f ON f.oid = o.confrelid LEFT JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
WHERE n.nspname = :schema AND c.relname = :table AND o.contype IN ('c', 'f', 'p', 'u', 'x') ORDER BY o.conname

-- constraints.sqlite --
SELECT 'fk_' || id AS name, 'foreign key' AS kind, '' AS definition, 1 AS validated, NULL AS expression,
       json_group_array("from") AS columns, :schema AS foreign_schema, "table" AS foreign_table,
       json_group_array("to") AS foreign_columns, lower(on_delete) AS on_delete, lower(on_update) AS on_update,
       '' AS special, NULL AS comment
FROM (SELECT f.id, f."table", f."from", f.on_delete, f.on_update,
             coalesce(f."to", (SELECT p.name FROM pragma_table_xinfo(f."table", :schema) p WHERE p.pk = f.seq + 1)) AS "to"
      FROM pragma_foreign_key_list(:table, :schema) f ORDER BY f.id, f.seq) GROUP BY id
UNION ALL
SELECT l.name, CASE l.origin WHEN 'pk' THEN 'primary key' ELSE 'unique' END, '', 1, NULL,
       (SELECT json_group_array(k.name)
        FROM (SELECT name FROM pragma_index_xinfo(l.name, :schema) WHERE "key" ORDER BY seqno) k),
       NULL, NULL, '[]', '', '', '', NULL
FROM pragma_index_list(:table, :schema) l WHERE l.origin <> 'c' ORDER BY 1

-- referencing.postgresql --
-- The foreign keys that refer to a table: the referring table, its columns, and those of this table.
SELECT n.nspname::text AS schema, c.relname::text AS name,
       ARRAY(SELECT a.attname::text FROM unnest(o.conkey) WITH ORDINALITY AS k(num, n)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.num ORDER BY k.n) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(o.confkey) WITH ORDINALITY AS k(num, n)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.num ORDER BY k.n)
         AS foreign_columns, o.confdeltype IN ('a', 'r') AS keeps
FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_class c ON c.oid = o.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_class f ON f.oid = o.confrelid
JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
WHERE fn.nspname = :schema AND f.relname = :table AND o.contype = 'f' AND o.conparentid = 0 ORDER BY 1, 2, o.conname

-- referencing.sqlite --
SELECT :schema AS schema, name, json_group_array("from") AS columns, json_group_array("to") AS foreign_columns,
       upper(on_delete) = 'NO ACTION' AS keeps
FROM (SELECT m.name, f.id, f."from", f.on_delete,
             coalesce(f."to", (SELECT p.name FROM pragma_table_xinfo(:table, :schema) p WHERE p.pk = f.seq + 1)) AS "to"
      FROM {schema}.sqlite_master m JOIN pragma_foreign_key_list(m.name, :schema) f
      WHERE m.type = 'table' AND f."table" = :table COLLATE NOCASE ORDER BY m.name, f.id, f.seq) GROUP BY name, id

-- triggers.postgresql --
SELECT t.tgname::text AS name, pg_get_triggerdef(t.oid) AS definition, t.tgenabled <> 'D' AS enabled,
       quote_ident(k.nspname) || '.' || quote_ident(p.proname) AS function, p.prosrc AS body
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace k ON k.oid = p.pronamespace
WHERE n.nspname = :schema AND c.relname = :table AND NOT t.tgisinternal ORDER BY t.tgname

-- triggers.sqlite --
SELECT name, sql AS definition, 1 AS enabled, '' AS function, sql AS body
FROM {schema}.sqlite_master WHERE type = 'trigger' AND tbl_name = :table COLLATE NOCASE ORDER BY name

-- tracked.postgresql --
WITH target AS (
  SELECT c.oid, a.attnum FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :column AND NOT a.attisdropped
  WHERE n.nspname = :schema AND c.relname = :table)
SELECT DISTINCT
  CASE d.classid
    WHEN 'pg_catalog.pg_rewrite'::regclass THEN
      CASE r.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'rule' END
    WHEN 'pg_catalog.pg_attrdef'::regclass THEN 'generated column'
    WHEN 'pg_catalog.pg_policy'::regclass THEN 'policy'
    WHEN 'pg_catalog.pg_trigger'::regclass THEN 'trigger'
    WHEN 'pg_catalog.pg_proc'::regclass THEN 'function'
    WHEN 'pg_catalog.pg_statistic_ext'::regclass THEN 'statistics'
    WHEN 'pg_catalog.pg_publication_rel'::regclass THEN 'publication'
    WHEN 'pg_catalog.pg_constraint'::regclass THEN
      CASE WHEN o.contype = 'f' AND o.conrelid <> t.oid THEN 'foreign key' ELSE 'constraint' END
    WHEN 'pg_catalog.pg_class'::regclass THEN
      CASE WHEN d.objsubid > 0 THEN 'generated column' WHEN x.relkind IN ('i', 'I') THEN 'index'
           WHEN x.relkind = 'S' THEN 'sequence' ELSE 'partition key' END
    ELSE 'other object' END AS kind,
  CASE d.classid
    WHEN 'pg_catalog.pg_rewrite'::regclass THEN
      quote_ident(rn.nspname) || '.' || quote_ident(r.relname)
      || CASE WHEN r.relkind IN ('v', 'm') THEN '' ELSE '.' || quote_ident(w.rulename) END
    WHEN 'pg_catalog.pg_attrdef'::regclass THEN g.attname::text
    WHEN 'pg_catalog.pg_policy'::regclass THEN y.polname::text
    WHEN 'pg_catalog.pg_trigger'::regclass THEN tr.tgname::text
    WHEN 'pg_catalog.pg_constraint'::regclass THEN o.conname::text
    WHEN 'pg_catalog.pg_publication_rel'::regclass THEN pb.pubname::text
    WHEN 'pg_catalog.pg_class'::regclass THEN coalesce(gc.attname::text, x.relname::text)
    ELSE (pg_identify_object(d.classid, d.objid, d.objsubid)).identity END AS name
FROM target t JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass
  AND d.refobjid = t.oid AND d.refobjsubid = t.attnum
LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid
LEFT JOIN pg_catalog.pg_class r ON r.oid = w.ev_class LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
LEFT JOIN pg_catalog.pg_attrdef e ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND e.oid = d.objid
LEFT JOIN pg_catalog.pg_attribute g ON g.attrelid = e.adrelid AND g.attnum = e.adnum
LEFT JOIN pg_catalog.pg_policy y ON d.classid = 'pg_catalog.pg_policy'::regclass AND y.oid = d.objid
LEFT JOIN pg_catalog.pg_trigger tr ON d.classid = 'pg_catalog.pg_trigger'::regclass AND tr.oid = d.objid
LEFT JOIN pg_catalog.pg_constraint o ON d.classid = 'pg_catalog.pg_constraint'::regclass AND o.oid = d.objid
LEFT JOIN pg_catalog.pg_publication_rel pr
  ON d.classid = 'pg_catalog.pg_publication_rel'::regclass AND pr.oid = d.objid
LEFT JOIN pg_catalog.pg_publication pb ON pb.oid = pr.prpubid
LEFT JOIN pg_catalog.pg_class x ON d.classid = 'pg_catalog.pg_class'::regclass AND x.oid = d.objid
LEFT JOIN pg_catalog.pg_attribute gc ON d.objsubid > 0 AND gc.attrelid = x.oid AND gc.attnum = d.objsubid
WHERE NOT (d.classid = 'pg_catalog.pg_attrdef'::regclass AND e.adrelid = t.oid AND e.adnum = t.attnum)
  AND NOT coalesce(tr.tgisinternal, false)
ORDER BY 1, 2

-- tracked.sqlite --
SELECT DISTINCT 'foreign key' AS kind, m.name AS name
FROM {schema}.sqlite_master m JOIN pragma_foreign_key_list(m.name, :schema) f
WHERE m.type = 'table' AND f."table" = :table COLLATE NOCASE AND f."to" = :column COLLATE NOCASE
  AND m.name <> :table COLLATE NOCASE
UNION
SELECT 'index', m.name FROM {schema}.sqlite_master m JOIN pragma_index_xinfo(m.name, :schema) k
WHERE m.type = 'index' AND m.tbl_name = :table COLLATE NOCASE AND k."key" AND k.name = :column COLLATE NOCASE
UNION
SELECT 'constraint', 'fk_' || f.id FROM pragma_foreign_key_list(:table, :schema) f
WHERE f."from" = :column COLLATE NOCASE
ORDER BY 1, 2

-- bodies.postgresql --
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
       quote_ident(k.nspname) || '.' || quote_ident(p.proname) AS name, p.prosrc AS body,
       EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE t.tgfoid = p.oid AND n.nspname = :schema AND c.relname = :table) AS on_table
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace k ON k.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE k.nspname NOT IN ('pg_catalog', 'information_schema') AND l.lanname NOT IN ('c', 'internal')
  AND position(lower(:column) IN lower(p.prosrc)) > 0 ORDER BY 2

-- bodies.sqlite --
SELECT type AS kind, name, sql AS body, tbl_name = :table COLLATE NOCASE AS on_table
FROM {schema}.sqlite_master WHERE type IN ('view', 'trigger') AND instr(lower(sql), lower(:column)) > 0 ORDER BY name

-- publications.postgresql --
SELECT p.pubname::text AS name, p.pubinsert AS inserts, p.pubupdate AS updates, p.pubdelete AS deletes
FROM pg_catalog.pg_publication_tables t JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
WHERE t.schemaname = :schema AND t.tablename = :table ORDER BY p.pubname

-- row_security.postgresql --
SELECT c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
       c.relkind IN ('r', 'p') AND row_security_active(c.oid) AS applies,
       ARRAY(SELECT p.polname || ' ' || p.polcmd::text || CASE WHEN p.polpermissive THEN ' permissive' ELSE ' restrictive' END
                    || ' to ' || array_to_string(ARRAY(SELECT coalesce(r.rolname::text, 'public')
                         FROM unnest(p.polroles) AS u(oid) LEFT JOIN pg_catalog.pg_roles r ON r.oid = u.oid ORDER BY 1), ',')
                    || coalesce(' using ' || pg_get_expr(p.polqual, p.polrelid), '')
                    || coalesce(' check ' || pg_get_expr(p.polwithcheck, p.polrelid), '')
             FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid ORDER BY p.polname) AS policies
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = :table

-- partitioning.postgresql --
SELECT pg_get_partkeydef(c.oid) AS key,
       ARRAY(SELECT quote_ident(k.nspname) || '.' || quote_ident(x.relname) FROM pg_catalog.pg_inherits i
             JOIN pg_catalog.pg_class x ON x.oid = i.inhrelid JOIN pg_catalog.pg_namespace k ON k.oid = x.relnamespace
             WHERE i.inhparent = c.oid ORDER BY 1) AS partitions
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = :table AND c.relkind = 'p'

-- primary_key.postgresql --
SELECT a.attname::text AS name
FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_class c ON c.oid = o.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace CROSS JOIN unnest(o.conkey) WITH ORDINALITY AS k(num, n)
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num
WHERE n.nspname = :schema AND c.relname = :table AND o.contype = 'p' ORDER BY k.n

-- primary_key.sqlite --
SELECT name FROM pragma_table_xinfo(:table, :schema) WHERE pk > 0 ORDER BY pk

-- builders.postgresql --
SELECT DISTINCT l.pid AS pid
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stat_progress_create_index p ON p.pid = l.pid
WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND n.nspname = :schema AND c.relname = :table AND l.pid <> pg_backend_pid()

-- maintain.postgresql --
SELECT has_table_privilege(c.oid, 'MAINTAIN') OR (NOT c.relisshared AND pg_has_role(b.datdba, 'USAGE')) AS allowed
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_database b ON b.datname = current_database()
WHERE n.nspname = :schema AND c.relname = :table

-- maintain_before_17.postgresql --
SELECT NOT c.relisshared AND pg_has_role(b.datdba, 'USAGE') AS allowed
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_database b ON b.datname = current_database()
WHERE n.nspname = :schema AND c.relname = :table

-- type_of_column.postgresql --
SELECT t.oid::bigint AS oid, a.atttypmod AS modifier, format_type(t.oid, a.atttypmod) AS name,
       t.typcollation::bigint AS collation, coalesce(e.typcategory, t.typcategory)::text AS category
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
WHERE a.attrelid = to_regclass('pg_temp.runbook_type') AND a.attname = 'wanted'

-- conversion.postgresql --
-- Of arrays their elements' casts count. What goes through text depends on the session where dates are written in it.
WITH pair AS (
  SELECT CASE WHEN 'A' IN (s.typcategory) AND 'A' IN (t.typcategory) THEN s.typelem ELSE s.oid END AS source,
         CASE WHEN 'A' IN (s.typcategory) AND 'A' IN (t.typcategory) THEN t.typelem ELSE t.oid END AS wanted
  FROM pg_catalog.pg_type s CROSS JOIN pg_catalog.pg_type t
  WHERE s.oid = CAST(:source AS oid) AND t.oid = CAST(:wanted AS oid))
SELECT pair.source = pair.wanted OR coalesce((c.castmethod = 'b' AND b.castmethod = 'b') OR (c.castmethod = 'f'
         AND c.castcontext = 'i' AND c.casttarget NOT IN ('float4'::regtype, 'float8'::regtype)), false) AS keeps,
       coalesce(f.provolatile <> 'i', false)
         OR (c.oid IS NULL AND s.typcategory = 'D' AND pair.source <> pair.wanted AND t.typcategory = 'S') AS session,
       t.typcategory = 'S' AS refuses_length
FROM pair JOIN pg_catalog.pg_type s ON s.oid = pair.source JOIN pg_catalog.pg_type t ON t.oid = pair.wanted
LEFT JOIN pg_catalog.pg_cast c ON c.castsource = pair.source AND c.casttarget = pair.wanted
                              AND pair.source <> pair.wanted
LEFT JOIN pg_catalog.pg_cast b ON b.castsource = pair.wanted AND b.casttarget = pair.source
LEFT JOIN pg_catalog.pg_proc f ON f.oid = c.castfunc

-- castable.postgresql --
WITH RECURSIVE base (given, oid) AS (
  SELECT oid, oid FROM pg_catalog.pg_type WHERE oid IN (CAST(:source AS oid), CAST(:wanted AS oid))
  UNION ALL SELECT b.given, d.typbasetype FROM base b JOIN pg_catalog.pg_type d ON d.oid = b.oid AND d.typtype = 'd')
SELECT 1 AS one FROM base bs JOIN pg_catalog.pg_type s ON s.oid = bs.oid AND s.typtype <> 'd'
CROSS JOIN base bt JOIN pg_catalog.pg_type t ON t.oid = bt.oid AND t.typtype <> 'd'
WHERE bs.given = CAST(:source AS oid) AND bt.given = CAST(:wanted AS oid)
  AND (s.oid = t.oid OR 'S' IN (s.typcategory, t.typcategory)
       OR EXISTS (SELECT 1 FROM pg_catalog.pg_cast c WHERE c.castsource = s.oid AND c.casttarget = t.oid))

-- files_of_indexes.postgresql --
SELECT x.relname::text AS name, pg_relation_filenode(x.oid)::bigint AS file
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
WHERE i.indrelid = CAST(:name AS regclass)

-- collation.postgresql --
SELECT quote_ident(k.nspname) || '.' || quote_ident(o.collname) AS name
FROM pg_catalog.pg_collation o JOIN pg_catalog.pg_namespace k ON k.oid = o.collnamespace
WHERE o.collencoding IN (-1, (SELECT encoding FROM pg_catalog.pg_database WHERE datname = current_database()))
  AND ((o.collname = :name AND pg_collation_is_visible(o.oid)) OR k.nspname || '.' || o.collname = :name
       OR quote_ident(k.nspname) || '.' || quote_ident(o.collname) = :name)
ORDER BY o.collname = :name DESC LIMIT 1

-- index_keys.sqlite --
SELECT name, coll, "desc" AS descending FROM pragma_index_xinfo(:index, :schema) WHERE "key" ORDER BY seqno

-- whole_schema.sqlite --
SELECT type, name, tbl_name AS table_name, sql FROM {schema}.sqlite_master
WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY CASE type WHEN 'table' THEN 1 WHEN 'index' THEN 2 WHEN 'view' THEN 3 ELSE 4 END, rowid

-- definition.sqlite --
SELECT sql FROM {schema}.sqlite_master WHERE type IN ('table', 'view') AND name = :table COLLATE NOCASE

-- plain_types.postgresql --
-- Each column's type by a name that holds under any search_path: of a domain, the type below it.
WITH RECURSIVE b AS (
  SELECT a.attnum, a.attname, a.atttypid AS type, a.atttypmod AS mod, 0 AS depth
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = CAST(:oid AS oid) AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT b.attnum, b.attname, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE b.mod END, b.depth + 1
  FROM b JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype = 'd')
SELECT DISTINCT ON (b.attnum) b.attname::text AS name, t.typtype = 'c' AS is_row, t.oid::bigint AS oid,
       CASE WHEN n.nspname = 'pg_catalog' THEN format_type(t.oid, b.mod)
            ELSE quote_ident(n.nspname) || '.' || quote_ident(t.typname) END AS type
FROM b JOIN pg_catalog.pg_type t ON t.oid = b.type JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
ORDER BY b.attnum, b.depth DESC

-- members.postgresql --
-- A table and all that inherits from it, with what holds there of a key and of an UPDATE. A unique index counts where it is
-- at least as fine as the columns' own equality, so not under another collation where that one takes letters for equal.
WITH RECURSIVE m AS (
  SELECT CAST(:oid AS oid) AS oid
  UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN m ON m.oid = i.inhparent)
SELECT c.oid::bigint AS oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relkind::text AS kind,
       EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
         AND i.indisready AND i.indpred IS NULL AND i.indexprs IS NULL
         AND ARRAY(SELECT a.attname::text FROM generate_series(1, i.indnkeyatts) AS k(n)
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[k.n - 1] ORDER BY k.n) = CAST(:keys AS text[])
         AND NOT EXISTS (SELECT 1 FROM generate_series(1, i.indnkeyatts) AS k(n)
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[k.n - 1]
                   JOIN pg_catalog.pg_opclass p ON p.oid = i.indclass[k.n - 1]
                   LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
                   WHERE NOT p.opcdefault OR (NOT o.collisdeterministic AND i.indcollation[k.n - 1] <> o.oid))) AS is_unique,
       EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY(CAST(:keys AS text[]))
               AND NOT a.attnotnull) AS nullable,
       EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '2') AS ruled,
       ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
             AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A') AND t.tgtype & 16 <> 0 ORDER BY 1) AS triggers
FROM m JOIN pg_catalog.pg_class c ON c.oid = m.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY c.oid <> CAST(:oid AS oid), 2

-- unseen_operators.postgresql --
-- Operators by which the types' own indexes compare, and which SQL text doesn't find: it would take another type's for them.
SELECT DISTINCT t.oid::bigint AS type_oid, format_type(t.oid, NULL) AS type, o.oprname::text AS operator,
       quote_ident(n.nspname) AS schema
FROM pg_catalog.pg_opclass k JOIN pg_catalog.pg_am m ON m.oid = k.opcmethod AND m.amname IN ('btree', 'hash')
JOIN pg_catalog.pg_type t ON t.oid = k.opcintype
JOIN pg_catalog.pg_amop p ON p.amopfamily = k.opcfamily AND p.amoplefttype = k.opcintype AND p.amoprighttype = k.opcintype
JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE k.opcdefault AND k.opcintype = ANY(CAST(:types AS oid[])) AND o.oprname IN ('=', '<', '>', '<=', '>=')
  AND NOT pg_catalog.pg_operator_is_visible(o.oid)
ORDER BY 2, 3

-- goes_with.postgresql --
-- All that goes with a table, one of its columns or one of its constraints, by the walk over pg_depend that DROP itself makes.
-- via: 'own' goes silently, 'bound' only with CASCADE, 'with' goes with something bound. alone: of this column only.
-- drop and restore: the server's own SQL. why_not: why no step takes it along. itself: only the target.
WITH RECURSIVE target AS (
  SELECT CASE WHEN k.oid IS NULL THEN 'pg_catalog.pg_class'::regclass::oid ELSE 'pg_catalog.pg_constraint'::regclass::oid END
           AS classid, coalesce(k.oid, c.oid) AS objid, coalesce(a.attnum, 0)::int AS sub, c.oid AS rel
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = CAST(:column AS text) AND a.attnum > 0
  LEFT JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.conname = CAST(:constraint AS text)
  WHERE n.nspname = CAST(:schema AS text) AND c.relname = CAST(:table AS text)
    AND (CAST(:column AS text) = '' OR a.attnum IS NOT NULL) AND (CAST(:constraint AS text) = '' OR k.oid IS NOT NULL)),
walk AS (
  SELECT classid, objid, sub, 'own'::text AS via, 0 AS depth FROM target
  UNION
  SELECT f.classid, f.objid, f.sub,
         CASE WHEN d.deptype = 'n' THEN 'bound' WHEN w.via = 'own' THEN 'own' ELSE 'with' END, w.depth + 1
  FROM walk w JOIN pg_catalog.pg_depend d ON d.refclassid = w.classid AND d.refobjid = w.objid
    AND (w.sub = 0 OR d.refobjsubid = w.sub) AND d.deptype IN ('n', 'a', 'i', 'P', 'S')
  LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid AND r.ev_type = '1'
  LEFT JOIN pg_catalog.pg_attrdef e ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND e.oid = d.objid
  LEFT JOIN pg_catalog.pg_attribute g ON g.attrelid = e.adrelid AND g.attnum = e.adnum AND g.attgenerated <> ''
  CROSS JOIN LATERAL (
    SELECT CASE WHEN r.oid IS NULL AND g.attnum IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::regclass::oid END AS classid,
           coalesce(r.ev_class, g.attrelid, d.objid) AS objid,
           CASE WHEN r.oid IS NOT NULL THEN 0 ELSE coalesce(g.attnum, d.objsubid) END::int AS sub) f
  WHERE w.depth < 16 AND (f.classid, f.objid, f.sub) IS DISTINCT FROM (w.classid, w.objid, w.sub)),
found AS (
  SELECT w.classid, w.objid, w.sub, max(w.depth) AS depth, t.rel, t.sub AS column_number, t.classid = 'pg_catalog.pg_class'::regclass AS of_rel,
         CASE WHEN bool_or(w.via = 'own') THEN 'own' WHEN bool_or(w.via = 'with') THEN 'with' ELSE 'bound' END AS via
  FROM walk w CROSS JOIN target t
  WHERE CAST(:itself AS boolean) = ((w.classid, w.objid, w.sub) IS NOT DISTINCT FROM (t.classid, t.objid, t.sub))
  GROUP BY w.classid, w.objid, w.sub, t.rel, t.sub, t.classid),
owned AS (
  SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind, c.relowner,
         quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS sql
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
part AS (
  SELECT f.classid, f.objid, f.sub, CASE o.contype WHEN 'f' THEN 'foreign key' ELSE 'constraint' END AS kind, o.conname::text AS name,
         o.conrelid AS rel, o.conrelid = f.rel AND o.conkey = ARRAY[f.column_number]::int2[] AS alone,
         format('ALTER TABLE %s DROP CONSTRAINT %I', b.sql, o.conname) AS drop,
         ARRAY[format('ALTER TABLE %s ADD CONSTRAINT %I ', b.sql, o.conname) || CASE
           WHEN u.built THEN CASE o.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END || format(' USING INDEX %I', x.relname)
             || CASE WHEN o.condeferred THEN ' DEFERRABLE INITIALLY DEFERRED' WHEN o.condeferrable THEN ' DEFERRABLE' ELSE '' END
           ELSE pg_get_constraintdef(o.oid) || CASE WHEN v.later THEN ' NOT VALID' ELSE '' END END]
         || CASE WHEN obj_description(o.oid, 'pg_constraint') IS NULL THEN '{}'::text[] ELSE
              ARRAY[format('COMMENT ON CONSTRAINT %I ON %s IS %L', o.conname, b.sql, obj_description(o.oid, 'pg_constraint'))] END
         || CASE WHEN i.indisclustered THEN ARRAY[format('ALTER TABLE %s CLUSTER ON %I', b.sql, x.relname)] ELSE '{}'::text[] END AS restore,
         CASE WHEN u.built THEN pg_get_indexdef(x.oid) ELSE '' END AS index_definition,
         CASE WHEN u.built THEN x.relname::text ELSE '' END AS index_name,
         coalesce(obj_description(x.oid, 'pg_class'), '') AS index_comment,
         CASE WHEN v.later THEN format('ALTER TABLE %s VALIDATE CONSTRAINT %I', b.sql, o.conname) ELSE '' END AS finish,
         CASE WHEN NOT o.conislocal THEN 'it is inherited: drop it where it was made'
              WHEN coalesce(i.indisreplident, false) AND o.contype <> 'f' THEN 'its index is the replica identity of the table: choose another first'
              ELSE '' END AS why_not
  FROM found f JOIN pg_catalog.pg_constraint o ON f.classid = 'pg_catalog.pg_constraint'::regclass AND o.oid = f.objid
    AND o.conparentid = 0 AND o.contype IN ('c', 'f', 'p', 'u', 'x') JOIN owned b ON b.oid = o.conrelid
  LEFT JOIN pg_catalog.pg_class x ON x.oid = o.conindid AND o.contype <> 'f'
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid
  CROSS JOIN LATERAL (SELECT o.contype IN ('p', 'u') AND x.relkind = 'i' AND x.relam = 403 AS built) u
  CROSS JOIN LATERAL (SELECT o.contype IN ('c', 'f') AND o.convalidated AND (o.contype = 'c' OR b.relkind <> 'p')
                      AND coalesce(to_jsonb(o) ->> 'conenforced', 'true') = 'true' AS later) v
  UNION ALL
  SELECT f.classid, f.objid, f.sub, 'index', x.name, i.indrelid,
         i.indrelid = f.rel AND i.indexprs IS NULL AND i.indpred IS NULL AND i.indnatts = 1 AND i.indkey[0] = f.column_number,
         format('DROP INDEX %s', x.sql),
         CASE WHEN b.relkind <> 'm' THEN '{}'::text[] ELSE ARRAY[pg_get_indexdef(x.oid)]
           || CASE WHEN obj_description(x.oid, 'pg_class') IS NULL THEN '{}'::text[] ELSE
                ARRAY[format('COMMENT ON INDEX %s IS %L', x.sql, obj_description(x.oid, 'pg_class'))] END END
         || ARRAY(SELECT format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s', x.sql, a.attnum, a.attstattarget)
                  FROM pg_catalog.pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0 ORDER BY a.attnum)
         || CASE WHEN i.indisclustered THEN ARRAY[format('ALTER %s %s CLUSTER ON %I',
              CASE b.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, b.sql, x.name)] ELSE '{}'::text[] END,
         CASE WHEN b.relkind = 'm' THEN '' ELSE pg_get_indexdef(x.oid) END, CASE WHEN b.relkind = 'm' THEN '' ELSE x.name END,
         coalesce(obj_description(x.oid, 'pg_class'), ''), '',
         CASE WHEN i.indisreplident THEN 'it is the replica identity of the table: choose another first'
              WHEN x.relkind = 'I' THEN 'it belongs to a partitioned table: drop it with a sql step' ELSE '' END
  FROM found f JOIN owned x ON f.classid = 'pg_catalog.pg_class'::regclass AND x.oid = f.objid AND f.sub = 0
  JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid JOIN owned b ON b.oid = i.indrelid
  WHERE b.relkind IN ('r', 'p', 'm') AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_inherits h WHERE h.inhrelid = x.oid)
    AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint o WHERE o.conindid = x.oid AND o.contype IN ('p', 'u', 'x'))
  UNION ALL
  SELECT f.classid, f.objid, f.sub, CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, b.name, c.oid, false,
         format('DROP %s %s', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, b.sql),
         ARRAY[format('CREATE %s %s%s AS %s%s', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, b.sql,
           ' WITH (' || array_to_string(c.reloptions, ', ') || ')', rtrim(pg_get_viewdef(c.oid), '; '),
           CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN ' WITH NO DATA' ELSE '' END)]
         || CASE WHEN obj_description(c.oid, 'pg_class') IS NULL THEN '{}'::text[] ELSE ARRAY[format('COMMENT ON %s %s IS %L',
              CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, b.sql, obj_description(c.oid, 'pg_class'))] END
         || ARRAY(SELECT format('COMMENT ON COLUMN %s.%I IS %L', b.sql, a.attname, col_description(c.oid, a.attnum))
                  FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                  AND col_description(c.oid, a.attnum) IS NOT NULL ORDER BY a.attnum)
         || CASE WHEN c.relowner = current_user::regrole THEN '{}'::text[] ELSE
              ARRAY[format('ALTER TABLE %s OWNER TO %s', b.sql, c.relowner::regrole)] END,
         '', '', '', '',
         CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                           AND (a.attacl IS NOT NULL OR a.atthasdef OR a.attoptions IS NOT NULL OR a.attstattarget >= 0))
              THEN 'it has grants, defaults or settings on columns, which would not come back' ELSE '' END
  FROM found f JOIN owned b ON f.classid = 'pg_catalog.pg_class'::regclass AND b.oid = f.objid AND f.sub = 0 AND b.relkind IN ('v', 'm')
  JOIN pg_catalog.pg_class c ON c.oid = b.oid
  UNION ALL
  SELECT f.classid, f.objid, f.sub, 'generated column', a.attname::text, a.attrelid, false,
         format('ALTER TABLE %s DROP COLUMN %I', b.sql, a.attname),
         ARRAY[format('ALTER TABLE %s ADD COLUMN %I %s%s GENERATED ALWAYS AS (%s) %s%s', b.sql, a.attname,
           format_type(a.atttypid, a.atttypmod), CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || (
             SELECT quote_ident(k.nspname) || '.' || quote_ident(l.collname) FROM pg_catalog.pg_collation l
             JOIN pg_catalog.pg_namespace k ON k.oid = l.collnamespace WHERE l.oid = a.attcollation) ELSE '' END,
           pg_get_expr(e.adbin, e.adrelid), CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END,
           CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END)]
         || CASE WHEN col_description(a.attrelid, a.attnum) IS NULL THEN '{}'::text[] ELSE
              ARRAY[format('COMMENT ON COLUMN %s.%I IS %L', b.sql, a.attname, col_description(a.attrelid, a.attnum))] END,
         '', '', '', '',
         CASE WHEN a.attacl IS NOT NULL OR a.attoptions IS NOT NULL OR a.attstattarget >= 0
              THEN 'it has grants or settings of its own, which would not come back' ELSE '' END
  FROM found f JOIN pg_catalog.pg_attribute a ON f.classid = 'pg_catalog.pg_class'::regclass AND a.attrelid = f.objid AND a.attnum = f.sub
    AND f.sub > 0 AND a.attgenerated <> '' JOIN owned b ON b.oid = a.attrelid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  JOIN pg_catalog.pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
  UNION ALL
  SELECT f.classid, f.objid, f.sub, 'trigger', t.tgname::text, t.tgrelid, false, format('DROP TRIGGER %I ON %s', t.tgname, b.sql),
         ARRAY[pg_get_triggerdef(t.oid)]
         || CASE WHEN obj_description(t.oid, 'pg_trigger') IS NULL THEN '{}'::text[] ELSE
              ARRAY[format('COMMENT ON TRIGGER %I ON %s IS %L', t.tgname, b.sql, obj_description(t.oid, 'pg_trigger'))] END,
         '', '', '', '', ''
  FROM found f JOIN pg_catalog.pg_trigger t ON f.classid = 'pg_catalog.pg_trigger'::regclass AND t.oid = f.objid
    AND NOT t.tgisinternal AND t.tgparentid = 0 JOIN owned b ON b.oid = t.tgrelid
  UNION ALL
  SELECT f.classid, f.objid, f.sub, 'rule', r.rulename::text, r.ev_class, false, format('DROP RULE %I ON %s', r.rulename, b.sql),
         ARRAY[rtrim(pg_get_ruledef(r.oid), '; ')]
         || CASE WHEN obj_description(r.oid, 'pg_rewrite') IS NULL THEN '{}'::text[] ELSE
              ARRAY[format('COMMENT ON RULE %I ON %s IS %L', r.rulename, b.sql, obj_description(r.oid, 'pg_rewrite'))] END,
         '', '', '', '',
         CASE r.ev_enabled WHEN 'O' THEN '' ELSE 'it is disabled, or for replicas: drop it with a sql step' END
  FROM found f JOIN pg_catalog.pg_rewrite r ON f.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = f.objid AND r.ev_type <> '1'
  JOIN owned b ON b.oid = r.ev_class
  UNION ALL
  SELECT f.classid, f.objid, f.sub, 'policy', y.polname::text, y.polrelid, false, format('DROP POLICY %I ON %s', y.polname, b.sql),
         ARRAY[format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', y.polname, b.sql,
           CASE WHEN y.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
           CASE y.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
           array_to_string(ARRAY(SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') FROM unnest(y.polroles) AS u(oid)
                                 LEFT JOIN pg_catalog.pg_roles r ON r.oid = u.oid ORDER BY 1), ', '))
           || coalesce(' USING (' || pg_get_expr(y.polqual, y.polrelid) || ')', '')
           || coalesce(' WITH CHECK (' || pg_get_expr(y.polwithcheck, y.polrelid) || ')', '')]
         || CASE WHEN obj_description(y.oid, 'pg_policy') IS NULL THEN '{}'::text[] ELSE
              ARRAY[format('COMMENT ON POLICY %I ON %s IS %L', y.polname, b.sql, obj_description(y.oid, 'pg_policy'))] END,
         '', '', '', '', ''
  FROM found f JOIN pg_catalog.pg_policy y ON f.classid = 'pg_catalog.pg_policy'::regclass AND y.oid = f.objid
  JOIN owned b ON b.oid = y.polrelid
  UNION ALL
  SELECT f.classid, f.objid, f.sub, 'statistics', s.stxname::text, s.stxrelid, false,
         format('DROP STATISTICS %I.%I', k.nspname, s.stxname), ARRAY[pg_get_statisticsobjdef(s.oid)]
         || CASE WHEN s.stxstattarget >= 0 THEN
              ARRAY[format('ALTER STATISTICS %I.%I SET STATISTICS %s', k.nspname, s.stxname, s.stxstattarget)] ELSE '{}'::text[] END
         || CASE WHEN obj_description(s.oid, 'pg_statistic_ext') IS NULL THEN '{}'::text[] ELSE
              ARRAY[format('COMMENT ON STATISTICS %I.%I IS %L', k.nspname, s.stxname, obj_description(s.oid, 'pg_statistic_ext'))] END,
         '', '', '', '', ''
  FROM found f JOIN pg_catalog.pg_statistic_ext s ON f.classid = 'pg_catalog.pg_statistic_ext'::regclass AND s.oid = f.objid
  JOIN pg_catalog.pg_namespace k ON k.oid = s.stxnamespace
  UNION ALL
  SELECT f.classid, f.objid, f.sub, CASE b.relkind WHEN 'S' THEN 'sequence' WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' ELSE 'foreign table' END,
         b.name, b.oid, false, '', '{}', '', '', '', '', CASE b.relkind WHEN 'S' THEN 'its next number would not come back'
         ELSE 'a table goes in a step of its own' END
  FROM found f JOIN owned b ON f.classid = 'pg_catalog.pg_class'::regclass AND b.oid = f.objid AND f.sub = 0 AND b.relkind IN ('S', 'r', 'p', 'f')
  WHERE NOT (f.of_rel AND b.oid = f.rel)
  UNION ALL
  SELECT f.classid, f.objid, f.sub, 'publication', pb.pubname::text, pr.prrelid, false, '', '{}', '', '', '', '',
         'change what it publishes first: ALTER PUBLICATION'
  FROM found f JOIN pg_catalog.pg_publication_rel pr ON f.classid = 'pg_catalog.pg_publication_rel'::regclass AND pr.oid = f.objid
  JOIN pg_catalog.pg_publication pb ON pb.oid = pr.prpubid
  UNION ALL
  SELECT f.classid, f.objid, f.sub, 'object', pg_describe_object(f.classid, f.objid, f.sub), NULL, false, '', '{}', '', '', '', '', 'drop or change it in a step of its own'
  FROM found f
  WHERE (f.via = 'bound' AND f.classid NOT IN ('pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_rewrite'::regclass,
           'pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_policy'::regclass, 'pg_catalog.pg_statistic_ext'::regclass,
           'pg_catalog.pg_publication_rel'::regclass, 'pg_catalog.pg_class'::regclass))
     OR (f.classid = 'pg_catalog.pg_class'::regclass AND f.sub > 0 AND NOT (f.of_rel AND f.objid = f.rel AND f.column_number = 0)
         AND EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a WHERE a.attrelid = f.objid AND a.attnum = f.sub AND a.attgenerated = '')))
SELECT f.via, f.depth, p.kind, p.name, coalesce(b.schema, '') AS schema, coalesce(b.name, '') AS table_name, p.alone, p.drop, p.restore,
       p.index_definition, p.index_name, p.index_comment, p.finish, p.why_not, coalesce(pg_has_role(b.relowner, 'USAGE'), true) AS owned
FROM found f JOIN part p ON p.classid = f.classid AND p.objid = f.objid AND p.sub = f.sub LEFT JOIN owned b ON b.oid = p.rel
ORDER BY f.depth DESC, f.objid DESC

-- goes_with.sqlite --
-- Views and triggers are found by trying (steps.catalog.dropping); these are what the pragmas know.
SELECT 'index' AS kind, m.name AS name, m.tbl_name AS table_name, coalesce(m.sql, '') AS sql,
       (SELECT count(*) FROM pragma_index_xinfo(m.name, :schema) WHERE "key") = 1 AND m.sql NOT LIKE '% WHERE %' AS alone
FROM {schema}.sqlite_master m
WHERE m.type = 'index' AND m.tbl_name = :table COLLATE NOCASE AND m.sql IS NOT NULL AND (:column = '' OR EXISTS (
        SELECT 1 FROM pragma_index_xinfo(m.name, :schema) WHERE "key" AND name = :column COLLATE NOCASE))
UNION ALL
SELECT 'foreign key', 'fk_' || f.id, m.name, '', 0
FROM {schema}.sqlite_master m JOIN pragma_foreign_key_list(m.name, :schema) f
WHERE m.type = 'table' AND f."table" = :table COLLATE NOCASE AND m.name <> :table COLLATE NOCASE
  AND (:column = '' OR coalesce(f."to", '') IN ('', :column))
ORDER BY 1, 2

-- grants.postgresql --
SELECT format('GRANT %s ON %I.%I TO %s%s', p.privilege_type, n.nspname, c.relname, coalesce(quote_ident(r.rolname), 'PUBLIC'),
         CASE WHEN p.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS sql
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(c.relacl) p
LEFT JOIN pg_catalog.pg_roles r ON r.oid = p.grantee WHERE n.nspname = :schema AND c.relname = :table ORDER BY 1

-- revokes.postgresql --
SELECT DISTINCT format('REVOKE ALL ON %I.%I FROM %s', n.nspname, c.relname, coalesce(quote_ident(r.rolname), 'PUBLIC')) AS sql
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) p
LEFT JOIN pg_catalog.pg_roles r ON r.oid = p.grantee
WHERE n.nspname = :schema AND c.relname = :table AND (CAST(:owner AS boolean) OR p.grantee <> c.relowner) ORDER BY 1

-- descendants.postgresql --
WITH RECURSIVE below AS (
  SELECT c.oid, 0 AS depth FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = :schema AND c.relname = :table
  UNION
  SELECT i.inhrelid, b.depth + 1 FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid)
SELECT n.nspname::text || '.' || c.relname AS name FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid AND b.depth > 0
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace GROUP BY 1 ORDER BY min(b.depth), 1

-- differing_descendants.postgresql --
-- A column that is added to the table gets the same type, default and generation below it, and nothing else.
WITH RECURSIVE below AS (
  SELECT c.oid, 0 AS depth FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = :schema AND c.relname = :table
  UNION
  SELECT i.inhrelid, b.depth + 1 FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid),
part AS (
  SELECT b.depth, c.oid, n.nspname::text || '.' || c.relname AS name, pg_get_expr(d.adbin, d.adrelid) AS default_value, a.attnotnull,
         coalesce(a.attstattarget, -1) AS target, a.attstorage,
         a.attacl IS NOT NULL OR a.attoptions IS NOT NULL OR a.attcompression <> '' OR col_description(c.oid, a.attnum) IS NOT NULL AS more
  FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :column AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum)
SELECT p.name FROM part p JOIN part t ON t.depth = 0
WHERE p.depth > 0 AND (p.more OR p.default_value IS DISTINCT FROM t.default_value OR (p.attnotnull, p.target, p.attstorage)
  IS DISTINCT FROM (t.attnotnull, t.target, t.attstorage)) ORDER BY 1

-- trigger_states.postgresql --
-- ONLY: else the state would be handed on to the partitions, each of which has its own.
WITH RECURSIVE own AS (
  SELECT t.oid, t.tgrelid, t.tgname, t.tgenabled FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = :schema AND c.relname = :table AND t.tgname = :name AND NOT t.tgisinternal
  UNION
  SELECT t.oid, t.tgrelid, t.tgname, t.tgenabled FROM own o JOIN pg_catalog.pg_trigger t ON t.tgparentid = o.oid)
SELECT format('ALTER TABLE ONLY %I.%I %s TRIGGER %I', n.nspname, c.relname,
         CASE o.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, o.tgname) AS sql
FROM own o JOIN pg_catalog.pg_class c ON c.oid = o.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE o.tgenabled <> 'O' ORDER BY 1

-- enabled_triggers.postgresql --
WITH RECURSIVE below AS (
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = :schema AND c.relname = :table
  UNION
  SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid)
SELECT format('ALTER TABLE ONLY %I.%I DISABLE TRIGGER %I', n.nspname, c.relname, t.tgname) AS rest,
       format('ALTER TABLE ONLY %I.%I %s TRIGGER %I', n.nspname, c.relname,
         CASE t.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END, t.tgname) AS wake
FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') ORDER BY 1

-- exists.postgresql --
-- Only that it exists: its size can't be read while somebody holds ACCESS EXCLUSIVE on it.
SELECT CASE c.relkind WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                      WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = :table AND c.relkind <> 'c'

-- exists.sqlite --
SELECT type AS kind FROM {schema}.sqlite_master WHERE name = :table COLLATE NOCASE

-- leftovers.postgresql --
-- What changes that were broken off leave behind, in all schemas but the system's.
SELECT 'index' AS kind, quote_ident(n.nspname) || '.' || quote_ident(x.relname) AS name,
       CASE WHEN i.indisvalid THEN 'indisready is false' ELSE 'indisvalid is false' END
         || CASE WHEN x.relname ~ '_ccnew\d*$' THEN ', left by REINDEX CONCURRENTLY before its end'
                 WHEN x.relname ~ '_ccold\d*$' THEN ', left by REINDEX CONCURRENTLY after its swap' ELSE '' END
         || coalesce(', being built by pid ' || b.pid, '') AS evidence,
       CASE WHEN b.pid IS NULL THEN 'DROP INDEX CONCURRENTLY ' || quote_ident(n.nspname) || '.' || quote_ident(x.relname) ELSE '' END AS mend,
       b.pid IS NOT NULL AS at_work, '' AS schema, '' AS relation, '' AS part
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
LEFT JOIN pg_catalog.pg_stat_progress_create_index b ON b.relid = i.indrelid
WHERE NOT (i.indisvalid AND i.indisready) AND x.relkind = 'i' AND n.nspname !~ '^pg_'
UNION ALL
SELECT 'constraint', quote_ident(o.conname) || ' on ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'convalidated is false',
       'ALTER TABLE ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' VALIDATE CONSTRAINT ' || quote_ident(o.conname), false,
       n.nspname::text, c.relname::text, o.conname::text
FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_class c ON c.oid = o.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT o.convalidated AND o.conparentid = 0 AND coalesce(to_jsonb(o) ->> 'conenforced', 'true') = 'true' AND n.nspname !~ '^pg_'
UNION ALL
SELECT 'trigger', quote_ident(t.tgname) || ' on ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       concat_ws(', ', CASE WHEN t.tgenabled = 'D' THEN 'it is disabled (tgenabled is D)' END,
         CASE WHEN t.tgname ~* '^(_pgroll_|pgroll_|pt_osc_|repack_|z_repack)' THEN 'its name is that of an online migration tool' END),
       '', false, n.nspname::text, c.relname::text,
       CASE WHEN t.tgname !~* '^(_pgroll_|pgroll_|pt_osc_|repack_|z_repack)' THEN t.tgname::text ELSE '' END
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND n.nspname !~ '^pg_'
  AND (t.tgenabled = 'D' OR t.tgname ~* '^(_pgroll_|pgroll_|pt_osc_|repack_|z_repack)')
UNION ALL
SELECT 'table', quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'its name is that of an online migration tool', '', false, '', '', ''
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND c.relname ~ '^_.+_(gho|ghc|del|new|old|pt_new)$'
UNION ALL
SELECT 'prepared transaction', quote_literal(gid), 'of ' || owner || ', since ' || to_char(prepared, 'YYYY-MM-DD HH24:MI:SS TZ'),
       'COMMIT PREPARED or ROLLBACK PREPARED ' || quote_literal(gid), false, '', '', ''
FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()
ORDER BY 1, 2

-- kept.postgresql --
-- Tables of the ledger's schema, and of that in which steps keep things; sql: the name as a statement has it.
SELECT CASE n.nspname WHEN :kept THEN '' ELSE c.relname::text END AS name,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS sql, pg_catalog.obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN (:schema, :kept) AND c.relkind IN ('r', 'p') ORDER BY 2

-- kept.sqlite --
SELECT name, CASE WHEN name GLOB '*[^A-Za-z0-9_]*' THEN '"' || replace(name, '"', '""') || '"' ELSE name END AS sql, NULL AS comment
FROM {schema}.sqlite_master WHERE type = 'table' AND name LIKE 'runbook\_%' ESCAPE '\' ORDER BY 1
