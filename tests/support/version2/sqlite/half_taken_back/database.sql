BEGIN TRANSACTION;
CREATE TABLE runbook_act (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, step text NOT NULL, action text NOT NULL, label text NOT NULL, epoch bigint NOT NULL,
        before text, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), UNIQUE (run, step, action, label));
INSERT INTO "runbook_act" VALUES(1,'fill-20261201-025720-e89e','fill','apply','begin',3,'{"table":"\"main\".\"t\"","key":[{"name":"id","type":"integer","row":false}],"fill":[{"name":"v","type":"text","row":false}],"oid":0}','2026-12-01T02:57:22.347Z');
INSERT INTO "runbook_act" VALUES(2,'fill-20261201-025720-e89e','fill','apply','batch 1',3,NULL,'2026-12-01T02:57:22.356Z');
INSERT INTO "runbook_act" VALUES(3,'fill-20261201-025720-e89e','fill','apply','batch 2',3,NULL,'2026-12-01T02:57:22.362Z');
INSERT INTO "runbook_act" VALUES(4,'fill-20261201-025720-e89e','fill','apply','batch 4',3,NULL,'2026-12-01T02:57:22.366Z');
INSERT INTO "runbook_act" VALUES(5,'fill-20261201-025720-e89e','fill','apply','batch 7',3,NULL,'2026-12-01T02:57:22.373Z');
INSERT INTO "runbook_act" VALUES(6,'fill-20261201-025720-e89e','fill','apply','batch 8',3,NULL,'2026-12-01T02:57:22.376Z');
INSERT INTO "runbook_act" VALUES(7,'fill-20261201-025720-e89e','fill','apply','batch 9',3,NULL,'2026-12-01T02:57:22.378Z');
INSERT INTO "runbook_act" VALUES(8,'fill-20261201-025720-e89e','fill','apply','sweep 10',3,NULL,'2026-12-01T02:57:22.381Z');
INSERT INTO "runbook_act" VALUES(9,'fill-20261201-025720-e89e','fill','apply','end 11',3,NULL,'2026-12-01T02:57:22.384Z');
INSERT INTO "runbook_act" VALUES(10,'fill-20261201-025720-e89e','fill','apply','reopen 10',5,NULL,'2026-12-01T02:57:23.029Z');
INSERT INTO "runbook_act" VALUES(11,'fill-20261201-025720-e89e','fill','apply','sweep 11',5,'{"table":"\"main\".\"t\"","key":[{"name":"id","type":"integer","row":false}],"fill":[{"name":"v","type":"text","row":false}],"oid":0}','2026-12-01T02:57:23.037Z');
INSERT INTO "runbook_act" VALUES(12,'fill-20261201-025720-e89e','fill','apply','batch 12',5,NULL,'2026-12-01T02:57:23.042Z');
INSERT INTO "runbook_act" VALUES(13,'fill-20261201-025720-e89e','fill','apply','end 13',5,NULL,'2026-12-01T02:57:23.046Z');
INSERT INTO "runbook_act" VALUES(14,'fill-20261201-025720-e89e','fill','revert','undo 9',7,NULL,'2026-12-01T02:57:23.721Z');
CREATE TABLE runbook_anchor (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, what text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "runbook_anchor" VALUES(1,'fill-20261201-025720-e89e','the approval of go','96d572dd13c1b5eace03574783d337ae8ea5d76f070bbb6a771c5f57b13c1517',9,'2026-12-01T02:57:21.541Z');
CREATE TABLE runbook_batch (run text NOT NULL, step text NOT NULL, action text NOT NULL, n bigint NOT NULL, worker integer NOT NULL,
        lo text, hi text, seen bigint NOT NULL, written bigint NOT NULL, already bigint NOT NULL, no_key bigint NOT NULL,
        not_in_source bigint NOT NULL, deferred bigint NOT NULL, dead bigint NOT NULL, ms double precision NOT NULL,
        server_wal_bytes bigint, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action, n));
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','apply',1,0,'','[5]',5,5,0,0,0,0,0,1.9381839993002358824e+00,NULL,'2026-12-01T02:57:22.355Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','apply',2,0,'[5]','[10]',5,5,0,0,0,0,0,1.33755699971516150981e+00,NULL,'2026-12-01T02:57:22.362Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','apply',4,0,'[10]','[12]',2,2,0,0,0,0,0,4.88273999508237466216e-01,NULL,'2026-12-01T02:57:22.365Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','apply',7,0,'[12]','[13]',1,0,0,0,0,0,1,0.0,NULL,'2026-12-01T02:57:22.373Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','apply',8,0,'[13]','[18]',5,5,0,0,0,0,0,5.7467099941277410835e-01,NULL,'2026-12-01T02:57:22.375Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','apply',9,0,'[18]','[20]',2,2,0,0,0,0,0,6.03736999437387567013e-01,NULL,'2026-12-01T02:57:22.378Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','apply',10,-1,'','',0,0,0,0,0,1,-1,0.0,NULL,'2026-12-01T02:57:23.028Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','apply',12,-1,'[13]','[13]',0,0,0,0,0,-1,1,0.0,NULL,'2026-12-01T02:57:23.042Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025720-e89e','fill','revert',9,0,NULL,NULL,2,2,0,0,0,0,0,0.0,NULL,'2026-12-01T02:57:23.721Z');
CREATE TABLE runbook_control (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, command text NOT NULL, by_whom text NOT NULL, reason text NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
CREATE TABLE runbook_dead (run text NOT NULL, step text NOT NULL, action text NOT NULL, key text NOT NULL, sqlstate text NOT NULL,
        message text NOT NULL, attempt integer NOT NULL, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action, key));
INSERT INTO "runbook_dead" VALUES('fill-20261201-025720-e89e','fill','apply','[13]','23514','CHECK constraint failed: v <> ''refused'' (in: UPDATE "main"."t" AS target SET "v" = coalesce(target."v", rb_j.rb_v0) FROM temp.runbook_window AS rb_j WHERE target."id" = rb_j.rb_k0 AND rb_j.rb_c = ''written'')',2,'2026-12-01T02:57:22.373Z');
CREATE TABLE runbook_heartbeat (scope text PRIMARY KEY, epoch bigint NOT NULL, beat_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "runbook_heartbeat" VALUES('target',7,'2026-12-01T02:57:23.699Z');
CREATE TABLE runbook_lease (scope text PRIMARY KEY, epoch bigint NOT NULL, run text NOT NULL, holder text NOT NULL,
        taken_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "runbook_lease" VALUES('target',7,'fill-20261201-025720-e89e','{"operator":"dana","user":"dana","host":"db1","pid":668,"started":1796093842.64,"versions":{"runbook":"0.1.0","python":"3.11.7","system":"Linux 6.1"},"boot_id":"4b4006ef-0d2d-4f65-8116-def0830d5e20","pid_ns":"pid:[4026531836]","ticks":634164}','2026-12-01T02:57:23.698Z');
CREATE TABLE runbook_meta (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO "runbook_meta" VALUES('version','2');
CREATE TABLE runbook_pass (run text NOT NULL, step text NOT NULL, action text NOT NULL, document text NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action));
INSERT INTO "runbook_pass" VALUES('fill-20261201-025720-e89e','fill','apply','{"route":{"kind":"key","columns":[{"name":"id","type":"integer","row":false}],"why":"the playbook asks for the key''s order"},"start":{"ranges":[{"kind":"keys","lo":"","hi":"[20]","heap":0}],"rows":20,"bytes":114688,"oid":0,"key":["id"],"start_xid":"","heap":0,"rows_per_page":1.0},"paused":false,"finished":true,"left":0}','2026-12-01T02:57:22.347Z');
CREATE TABLE runbook_run (run text PRIMARY KEY, playbook text NOT NULL, digest text NOT NULL, approval_digest text NOT NULL,
        kind text NOT NULL, state text NOT NULL, target text NOT NULL, identity text NOT NULL, inputs text NOT NULL,
        operator text NOT NULL, host text NOT NULL, started_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), ended_at text,
        rolled_back_at text, steps text NOT NULL, source text NOT NULL,
        figures text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL);
INSERT INTO "runbook_run" VALUES('fill-20261201-025720-e89e','fill','67816ae2a34e2fbe3e423a478a53e0426d44957c1c47709cd57ccc0d9a7526ad','1d7c2e8db91cbb47e43738211f461ca98ad94d6d1dd08b67bbff8ee8e4726c82','real','running','sqlite:////tmp/tmpgj22dvhk/sqlite/test_4/database.sqlite','{"name": "sqlite:////tmp/tmpgj22dvhk/sqlite/test_4/database.sqlite", "file": "/tmp/tmpgj22dvhk/sqlite/test_4/database.sqlite", "dialect": "sqlite", "inode": 2539537, "device": 65024}','{}','dana','db1','2026-12-01T02:57:20.816Z','2026-12-01T02:57:23.058Z',NULL,'{"add": "2738cac9c01d90dc830c3a28ba65e64642f7de03680f64e594fe202d0fc2da87", "go": "13eef6d34f6a1304f72e04f3976ef456216be3dfe952cbbc808f8101d4409e1a", "fill": "dedfb2cca1bc4fe5c1408303542339cae32fb2f43f2fc4264aa00fee90d6c300"}','{"fill.yaml": "# The playbook of the runs in this folder: a column, a gate, and a backfill of four batches with one row that the table refuses.\nrunbook: 1\nname: fill\ntitle: Add a column, and fill another one behind a gate\nsteps:\n  - {id: add, type: add_column, column: t.reviewed, of_type: text}\n  - id: go\n    type: checkpoint\n    message: Read the plan, then say yes\n    approval: {roles: [dba], need: 1}\n  - id: fill\n    type: backfill\n    table: t\n    key: id\n    order: key\n    source: SELECT k, v FROM s\n    match: source.k = target.k\n    fill: [v]\n    batch: {time: 1 s, rows: [5, 5]}\n    throttle: {batch: 1 s, rest: 1}\n    dead_letters: {max: 2, pct: 20}\n    success_criteria:\n      - {id: nothing_left, that: visited == in_range and deferred == 0 and dead <= 2}\nsuccess_criteria:\n  - {id: filled, check: query, query: \"SELECT count(v) AS n FROM t\", that: n == 19}\nrollback: reverse\n"}','{"nothing_left": {"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.025, "rows_per_second": 801.8, "batches": 8}, "fill": {"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.025, "rows_per_second": 801.8, "batches": 8}, "filled": {"rows": 1, "n": 19}}','396a2d6bc5972f3b4b35f77d4b4162b0e1d661a02711cc74f2efd0bdf96999b6',31);
CREATE TABLE runbook_step (run text NOT NULL, step text NOT NULL, action text NOT NULL, state text NOT NULL, results text NOT NULL,
        trail_head text NOT NULL, trail_length bigint NOT NULL, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action));
INSERT INTO "runbook_step" VALUES('fill-20261201-025720-e89e','add','apply','already_so','{}','fb067811e3fca889d22ace695a4f62e7f3fe1c53dfea37d69cc5afeeb9347bf1',5,'2026-12-01T02:57:20.832Z');
INSERT INTO "runbook_step" VALUES('fill-20261201-025720-e89e','go','apply','passed','{"approval_digest": "1d7c2e8db91cbb47e43738211f461ca98ad94d6d1dd08b67bbff8ee8e4726c82", "approved_by": ["ines"], "until": ""}','916150c2378f59954c060e0ceece66ce5d8ed089c3a51d71058570cc80eacd2b',13,'2026-12-01T02:57:22.329Z');
INSERT INTO "runbook_step" VALUES('fill-20261201-025720-e89e','fill','apply','done','{"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.025, "rows_per_second": 801.8, "batches": 8}','2668c96e3fc911c242b1b819e55a877b5f7db30850e2817ef2e53fabfc5a5972',27,'2026-12-01T02:57:22.392Z');
CREATE TABLE runbook_undo (run text NOT NULL, step text NOT NULL, n bigint NOT NULL, rows bigint NOT NULL, payload text NOT NULL,
        PRIMARY KEY (run, step, n));
INSERT INTO "runbook_undo" VALUES('fill-20261201-025720-e89e','fill',1,5,'[[1,"''two''"],[2,"''one''"],[3,"''two''"],[4,"''one''"],[5,"''two''"]]');
INSERT INTO "runbook_undo" VALUES('fill-20261201-025720-e89e','fill',2,5,'[[6,"''one''"],[7,"''two''"],[8,"''one''"],[9,"''two''"],[10,"''one''"]]');
INSERT INTO "runbook_undo" VALUES('fill-20261201-025720-e89e','fill',4,2,'[[11,"''two''"],[12,"''one''"]]');
INSERT INTO "runbook_undo" VALUES('fill-20261201-025720-e89e','fill',8,5,'[[14,"''one''"],[15,"''two''"],[16,"''one''"],[17,"''two''"],[18,"''one''"]]');
INSERT INTO "runbook_undo" VALUES('fill-20261201-025720-e89e','fill',9,2,'[[19,"''two''"],[20,"''one''"]]');
CREATE TABLE s (k integer PRIMARY KEY, v text);
INSERT INTO "s" VALUES(1,'one');
INSERT INTO "s" VALUES(2,'two');
INSERT INTO "s" VALUES(3,'refused');
CREATE TABLE t (id integer PRIMARY KEY, k integer, v text CHECK (v <> 'refused'), reviewed text);
INSERT INTO "t" VALUES(1,2,'two',NULL);
INSERT INTO "t" VALUES(2,1,'one',NULL);
INSERT INTO "t" VALUES(3,2,'two',NULL);
INSERT INTO "t" VALUES(4,1,'one',NULL);
INSERT INTO "t" VALUES(5,2,'two',NULL);
INSERT INTO "t" VALUES(6,1,'one',NULL);
INSERT INTO "t" VALUES(7,2,'two',NULL);
INSERT INTO "t" VALUES(8,1,'one',NULL);
INSERT INTO "t" VALUES(9,2,'two',NULL);
INSERT INTO "t" VALUES(10,1,'one',NULL);
INSERT INTO "t" VALUES(11,2,'two',NULL);
INSERT INTO "t" VALUES(12,1,'one',NULL);
INSERT INTO "t" VALUES(13,3,NULL,NULL);
INSERT INTO "t" VALUES(14,1,'one',NULL);
INSERT INTO "t" VALUES(15,2,'two',NULL);
INSERT INTO "t" VALUES(16,1,'one',NULL);
INSERT INTO "t" VALUES(17,2,'two',NULL);
INSERT INTO "t" VALUES(18,1,'one',NULL);
INSERT INTO "t" VALUES(19,2,NULL,NULL);
INSERT INTO "t" VALUES(20,1,NULL,NULL);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runbook_anchor',1);
INSERT INTO "sqlite_sequence" VALUES('runbook_act',14);
COMMIT;
