BEGIN TRANSACTION;
CREATE TABLE runbook_act (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, step text NOT NULL, action text NOT NULL, label text NOT NULL, epoch bigint NOT NULL,
        before text, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), UNIQUE (run, step, action, label));
INSERT INTO "runbook_act" VALUES(1,'fill-20261201-025715-7d01','add','apply','add',1,'{"table":"t","column":"reviewed","transaction":"","value":null}','2026-12-01T02:57:16.024Z');
CREATE TABLE runbook_anchor (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, what text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
CREATE TABLE runbook_batch (run text NOT NULL, step text NOT NULL, action text NOT NULL, n bigint NOT NULL, worker integer NOT NULL,
        lo text, hi text, seen bigint NOT NULL, written bigint NOT NULL, already bigint NOT NULL, no_key bigint NOT NULL,
        not_in_source bigint NOT NULL, deferred bigint NOT NULL, dead bigint NOT NULL, ms double precision NOT NULL,
        server_wal_bytes bigint, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action, n));
CREATE TABLE runbook_control (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, command text NOT NULL, by_whom text NOT NULL, reason text NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
CREATE TABLE runbook_dead (run text NOT NULL, step text NOT NULL, action text NOT NULL, key text NOT NULL, sqlstate text NOT NULL,
        message text NOT NULL, attempt integer NOT NULL, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action, key));
CREATE TABLE runbook_heartbeat (scope text PRIMARY KEY, epoch bigint NOT NULL, beat_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "runbook_heartbeat" VALUES('target',1,'2026-12-01T02:57:16.011Z');
CREATE TABLE runbook_lease (scope text PRIMARY KEY, epoch bigint NOT NULL, run text NOT NULL, holder text NOT NULL,
        taken_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "runbook_lease" VALUES('target',2,'','{"operator":"dana","user":"dana","host":"db1","pid":451,"started":1796093835.0,"versions":{"runbook":"0.1.0","python":"3.11.7","system":"Linux 6.1"},"boot_id":"4b4006ef-0d2d-4f65-8116-def0830d5e20","pid_ns":"pid:[4026531836]","ticks":633400}','2026-12-01T02:57:16.011Z');
CREATE TABLE runbook_meta (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO "runbook_meta" VALUES('version','2');
CREATE TABLE runbook_pass (run text NOT NULL, step text NOT NULL, action text NOT NULL, document text NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action));
CREATE TABLE runbook_run (run text PRIMARY KEY, playbook text NOT NULL, digest text NOT NULL, approval_digest text NOT NULL,
        kind text NOT NULL, state text NOT NULL, target text NOT NULL, identity text NOT NULL, inputs text NOT NULL,
        operator text NOT NULL, host text NOT NULL, started_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), ended_at text,
        rolled_back_at text, steps text NOT NULL, source text NOT NULL,
        figures text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL);
INSERT INTO "runbook_run" VALUES('fill-20261201-025715-7d01','fill','67816ae2a34e2fbe3e423a478a53e0426d44957c1c47709cd57ccc0d9a7526ad','1d7c2e8db91cbb47e43738211f461ca98ad94d6d1dd08b67bbff8ee8e4726c82','real','waiting','sqlite:////tmp/tmpgj22dvhk/sqlite/test_1/database.sqlite','{"name": "sqlite:////tmp/tmpgj22dvhk/sqlite/test_1/database.sqlite", "file": "/tmp/tmpgj22dvhk/sqlite/test_1/database.sqlite", "dialect": "sqlite", "inode": 2539537, "device": 65024}','{}','dana','db1','2026-12-01T02:57:16.014Z','2026-12-01T02:57:16.038Z',NULL,'{"add": "2738cac9c01d90dc830c3a28ba65e64642f7de03680f64e594fe202d0fc2da87", "go": "13eef6d34f6a1304f72e04f3976ef456216be3dfe952cbbc808f8101d4409e1a", "fill": "dedfb2cca1bc4fe5c1408303542339cae32fb2f43f2fc4264aa00fee90d6c300"}','{"fill.yaml": "# The playbook of the runs in this folder: a column, a gate, and a backfill of four batches with one row that the table refuses.\nrunbook: 1\nname: fill\ntitle: Add a column, and fill another one behind a gate\nsteps:\n  - {id: add, type: add_column, column: t.reviewed, of_type: text}\n  - id: go\n    type: checkpoint\n    message: Read the plan, then say yes\n    approval: {roles: [dba], need: 1}\n  - id: fill\n    type: backfill\n    table: t\n    key: id\n    order: key\n    source: SELECT k, v FROM s\n    match: source.k = target.k\n    fill: [v]\n    batch: {time: 1 s, rows: [5, 5]}\n    throttle: {batch: 1 s, rest: 1}\n    dead_letters: {max: 2, pct: 20}\n    success_criteria:\n      - {id: nothing_left, that: visited == in_range and deferred == 0 and dead <= 2}\nsuccess_criteria:\n  - {id: filled, check: query, query: \"SELECT count(v) AS n FROM t\", that: n == 19}\nrollback: reverse\n"}','{}','ec8a52ed086bae11a11cdb95bc3f934678cf75c7c50da3b622f933adfdc114e0',9);
CREATE TABLE runbook_step (run text NOT NULL, step text NOT NULL, action text NOT NULL, state text NOT NULL, results text NOT NULL,
        trail_head text NOT NULL, trail_length bigint NOT NULL, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action));
INSERT INTO "runbook_step" VALUES('fill-20261201-025715-7d01','add','apply','done','{}','091f21afa2d1cbee18309bcf88947cf7ab8ebba2650a93b46c0f2d60d01c4b2c',6,'2026-12-01T02:57:16.032Z');
CREATE TABLE runbook_undo (run text NOT NULL, step text NOT NULL, n bigint NOT NULL, rows bigint NOT NULL, payload text NOT NULL,
        PRIMARY KEY (run, step, n));
CREATE TABLE s (k integer PRIMARY KEY, v text);
INSERT INTO "s" VALUES(1,'one');
INSERT INTO "s" VALUES(2,'two');
INSERT INTO "s" VALUES(3,'refused');
CREATE TABLE t (id integer PRIMARY KEY, k integer, v text CHECK (v <> 'refused'), "reviewed" text);
INSERT INTO "t" VALUES(1,2,NULL,NULL);
INSERT INTO "t" VALUES(2,1,NULL,NULL);
INSERT INTO "t" VALUES(3,2,NULL,NULL);
INSERT INTO "t" VALUES(4,1,NULL,NULL);
INSERT INTO "t" VALUES(5,2,NULL,NULL);
INSERT INTO "t" VALUES(6,1,NULL,NULL);
INSERT INTO "t" VALUES(7,2,NULL,NULL);
INSERT INTO "t" VALUES(8,1,NULL,NULL);
INSERT INTO "t" VALUES(9,2,NULL,NULL);
INSERT INTO "t" VALUES(10,1,NULL,NULL);
INSERT INTO "t" VALUES(11,2,NULL,NULL);
INSERT INTO "t" VALUES(12,1,NULL,NULL);
INSERT INTO "t" VALUES(13,3,NULL,NULL);
INSERT INTO "t" VALUES(14,1,NULL,NULL);
INSERT INTO "t" VALUES(15,2,NULL,NULL);
INSERT INTO "t" VALUES(16,1,NULL,NULL);
INSERT INTO "t" VALUES(17,2,NULL,NULL);
INSERT INTO "t" VALUES(18,1,NULL,NULL);
INSERT INTO "t" VALUES(19,2,NULL,NULL);
INSERT INTO "t" VALUES(20,1,NULL,NULL);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runbook_act',1);
COMMIT;
