BEGIN TRANSACTION;
CREATE TABLE runbook_act (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, step text NOT NULL, action text NOT NULL, label text NOT NULL, epoch bigint NOT NULL,
        before text, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), UNIQUE (run, step, action, label));
INSERT INTO "runbook_act" VALUES(1,'fill-20261201-025718-1d89','fill','apply','begin',3,'{"table":"\"main\".\"t\"","key":[{"name":"id","type":"integer","row":false}],"fill":[{"name":"v","type":"text","row":false}],"oid":0}','2026-12-01T02:57:19.514Z');
INSERT INTO "runbook_act" VALUES(2,'fill-20261201-025718-1d89','fill','apply','batch 1',3,NULL,'2026-12-01T02:57:19.525Z');
INSERT INTO "runbook_act" VALUES(3,'fill-20261201-025718-1d89','fill','apply','batch 2',3,NULL,'2026-12-01T02:57:19.531Z');
INSERT INTO "runbook_act" VALUES(4,'fill-20261201-025718-1d89','fill','apply','batch 4',3,NULL,'2026-12-01T02:57:19.536Z');
INSERT INTO "runbook_act" VALUES(5,'fill-20261201-025718-1d89','fill','apply','batch 7',3,NULL,'2026-12-01T02:57:19.545Z');
INSERT INTO "runbook_act" VALUES(6,'fill-20261201-025718-1d89','fill','apply','batch 8',3,NULL,'2026-12-01T02:57:19.550Z');
INSERT INTO "runbook_act" VALUES(7,'fill-20261201-025718-1d89','fill','apply','batch 9',3,NULL,'2026-12-01T02:57:19.554Z');
INSERT INTO "runbook_act" VALUES(8,'fill-20261201-025718-1d89','fill','apply','sweep 10',3,NULL,'2026-12-01T02:57:19.559Z');
INSERT INTO "runbook_act" VALUES(9,'fill-20261201-025718-1d89','fill','apply','end 11',3,NULL,'2026-12-01T02:57:19.565Z');
INSERT INTO "runbook_act" VALUES(10,'fill-20261201-025718-1d89','fill','apply','reopen 10',5,NULL,'2026-12-01T02:57:20.177Z');
INSERT INTO "runbook_act" VALUES(11,'fill-20261201-025718-1d89','fill','apply','sweep 11',5,'{"table":"\"main\".\"t\"","key":[{"name":"id","type":"integer","row":false}],"fill":[{"name":"v","type":"text","row":false}],"oid":0}','2026-12-01T02:57:20.189Z');
INSERT INTO "runbook_act" VALUES(12,'fill-20261201-025718-1d89','fill','apply','batch 12',5,NULL,'2026-12-01T02:57:20.197Z');
INSERT INTO "runbook_act" VALUES(13,'fill-20261201-025718-1d89','fill','apply','end 13',5,NULL,'2026-12-01T02:57:20.203Z');
CREATE TABLE runbook_anchor (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, what text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "runbook_anchor" VALUES(1,'fill-20261201-025718-1d89','the approval of go','b799309e5ac5dc8488da5c317513f894bd806f0fa2750074529f59547800bae1',9,'2026-12-01T02:57:18.893Z');
CREATE TABLE runbook_batch (run text NOT NULL, step text NOT NULL, action text NOT NULL, n bigint NOT NULL, worker integer NOT NULL,
        lo text, hi text, seen bigint NOT NULL, written bigint NOT NULL, already bigint NOT NULL, no_key bigint NOT NULL,
        not_in_source bigint NOT NULL, deferred bigint NOT NULL, dead bigint NOT NULL, ms double precision NOT NULL,
        server_wal_bytes bigint, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action, n));
INSERT INTO "runbook_batch" VALUES('fill-20261201-025718-1d89','fill','apply',1,0,'','[5]',5,5,0,0,0,0,0,1.88704399988637305796e+00,NULL,'2026-12-01T02:57:19.524Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025718-1d89','fill','apply',2,0,'[5]','[10]',5,5,0,0,0,0,0,1.11918000038713216781e+00,NULL,'2026-12-01T02:57:19.530Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025718-1d89','fill','apply',4,0,'[10]','[12]',2,2,0,0,0,0,0,4.27109000156633555889e-01,NULL,'2026-12-01T02:57:19.536Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025718-1d89','fill','apply',7,0,'[12]','[13]',1,0,0,0,0,0,1,0.0,NULL,'2026-12-01T02:57:19.545Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025718-1d89','fill','apply',8,0,'[13]','[18]',5,5,0,0,0,0,0,5.17274000230827368795e-01,NULL,'2026-12-01T02:57:19.550Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025718-1d89','fill','apply',9,0,'[18]','[20]',2,2,0,0,0,0,0,4.27506000050925649702e-01,NULL,'2026-12-01T02:57:19.554Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025718-1d89','fill','apply',10,-1,'','',0,0,0,0,0,1,-1,0.0,NULL,'2026-12-01T02:57:20.176Z');
INSERT INTO "runbook_batch" VALUES('fill-20261201-025718-1d89','fill','apply',12,-1,'[13]','[13]',0,0,0,0,0,-1,1,0.0,NULL,'2026-12-01T02:57:20.197Z');
CREATE TABLE runbook_control (seq integer PRIMARY KEY AUTOINCREMENT, run text NOT NULL, command text NOT NULL, by_whom text NOT NULL, reason text NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
CREATE TABLE runbook_dead (run text NOT NULL, step text NOT NULL, action text NOT NULL, key text NOT NULL, sqlstate text NOT NULL,
        message text NOT NULL, attempt integer NOT NULL, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action, key));
INSERT INTO "runbook_dead" VALUES('fill-20261201-025718-1d89','fill','apply','[13]','23514','CHECK constraint failed: v <> ''refused'' (in: UPDATE "main"."t" AS target SET "v" = coalesce(target."v", rb_j.rb_v0) FROM temp.runbook_window AS rb_j WHERE target."id" = rb_j.rb_k0 AND rb_j.rb_c = ''written'')',2,'2026-12-01T02:57:19.545Z');
CREATE TABLE runbook_heartbeat (scope text PRIMARY KEY, epoch bigint NOT NULL, beat_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "runbook_heartbeat" VALUES('target',5,'2026-12-01T02:57:20.157Z');
CREATE TABLE runbook_lease (scope text PRIMARY KEY, epoch bigint NOT NULL, run text NOT NULL, holder text NOT NULL,
        taken_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
INSERT INTO "runbook_lease" VALUES('target',6,'','{"operator":"dana","user":"dana","host":"db1","pid":487,"started":1796093839.13,"versions":{"runbook":"0.1.0","python":"3.11.7","system":"Linux 6.1"},"boot_id":"4b4006ef-0d2d-4f65-8116-def0830d5e20","pid_ns":"pid:[4026531836]","ticks":633813}','2026-12-01T02:57:20.157Z');
CREATE TABLE runbook_meta (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO "runbook_meta" VALUES('version','2');
CREATE TABLE runbook_pass (run text NOT NULL, step text NOT NULL, action text NOT NULL, document text NOT NULL,
        at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action));
INSERT INTO "runbook_pass" VALUES('fill-20261201-025718-1d89','fill','apply','{"route":{"kind":"key","columns":[{"name":"id","type":"integer","row":false}],"why":"the playbook asks for the key''s order"},"start":{"ranges":[{"kind":"keys","lo":"","hi":"[20]","heap":0}],"rows":20,"bytes":114688,"oid":0,"key":["id"],"start_xid":"","heap":0,"rows_per_page":1.0},"paused":false,"finished":true,"left":0}','2026-12-01T02:57:19.514Z');
CREATE TABLE runbook_run (run text PRIMARY KEY, playbook text NOT NULL, digest text NOT NULL, approval_digest text NOT NULL,
        kind text NOT NULL, state text NOT NULL, target text NOT NULL, identity text NOT NULL, inputs text NOT NULL,
        operator text NOT NULL, host text NOT NULL, started_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), ended_at text,
        rolled_back_at text, steps text NOT NULL, source text NOT NULL,
        figures text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL);
INSERT INTO "runbook_run" VALUES('fill-20261201-025718-1d89','fill','67816ae2a34e2fbe3e423a478a53e0426d44957c1c47709cd57ccc0d9a7526ad','1d7c2e8db91cbb47e43738211f461ca98ad94d6d1dd08b67bbff8ee8e4726c82','real','succeeded','sqlite:////tmp/tmpgj22dvhk/sqlite/test_3/database.sqlite','{"name": "sqlite:////tmp/tmpgj22dvhk/sqlite/test_3/database.sqlite", "file": "/tmp/tmpgj22dvhk/sqlite/test_3/database.sqlite", "dialect": "sqlite", "inode": 2539537, "device": 65024}','{}','dana','db1','2026-12-01T02:57:18.343Z','2026-12-01T02:57:20.216Z',NULL,'{"add": "2738cac9c01d90dc830c3a28ba65e64642f7de03680f64e594fe202d0fc2da87", "go": "13eef6d34f6a1304f72e04f3976ef456216be3dfe952cbbc808f8101d4409e1a", "fill": "dedfb2cca1bc4fe5c1408303542339cae32fb2f43f2fc4264aa00fee90d6c300"}','{"fill.yaml": "# The playbook of the runs in this folder: a column, a gate, and a backfill of four batches with one row that the table refuses.\nrunbook: 1\nname: fill\ntitle: Add a column, and fill another one behind a gate\nsteps:\n  - {id: add, type: add_column, column: t.reviewed, of_type: text}\n  - id: go\n    type: checkpoint\n    message: Read the plan, then say yes\n    approval: {roles: [dba], need: 1}\n  - id: fill\n    type: backfill\n    table: t\n    key: id\n    order: key\n    source: SELECT k, v FROM s\n    match: source.k = target.k\n    fill: [v]\n    batch: {time: 1 s, rows: [5, 5]}\n    throttle: {batch: 1 s, rest: 1}\n    dead_letters: {max: 2, pct: 20}\n    success_criteria:\n      - {id: nothing_left, that: visited == in_range and deferred == 0 and dead <= 2}\nsuccess_criteria:\n  - {id: filled, check: query, query: \"SELECT count(v) AS n FROM t\", that: n == 19}\nrollback: reverse\n"}','{"nothing_left": {"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.032, "rows_per_second": 626.9, "batches": 8}, "fill": {"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.032, "rows_per_second": 626.9, "batches": 8}, "filled": {"rows": 1, "n": 19}}','ad3123f29a98a705b6d117df6283a8abd4200d559c39f997319ca3a40fddf4ae',29);
CREATE TABLE runbook_step (run text NOT NULL, step text NOT NULL, action text NOT NULL, state text NOT NULL, results text NOT NULL,
        trail_head text NOT NULL, trail_length bigint NOT NULL, at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (run, step, action));
INSERT INTO "runbook_step" VALUES('fill-20261201-025718-1d89','add','apply','already_so','{}','885730dffa5ed4a5df3f14e5174392bd6b099d17304138a6ea3ecb50ccc612a2',5,'2026-12-01T02:57:18.358Z');
INSERT INTO "runbook_step" VALUES('fill-20261201-025718-1d89','go','apply','passed','{"approval_digest": "1d7c2e8db91cbb47e43738211f461ca98ad94d6d1dd08b67bbff8ee8e4726c82", "approved_by": ["ines"], "until": ""}','d5c3e723a81d5b5355a0f67f6a5af868923944060409261b72c89e7b03651289',13,'2026-12-01T02:57:19.496Z');
INSERT INTO "runbook_step" VALUES('fill-20261201-025718-1d89','fill','apply','done','{"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.032, "rows_per_second": 626.9, "batches": 8}','4db488a33bff92b3e34d22a6f0b35f9432056311931ab6e5ffc65d2233aa0266',27,'2026-12-01T02:57:19.575Z');
CREATE TABLE runbook_undo (run text NOT NULL, step text NOT NULL, n bigint NOT NULL, rows bigint NOT NULL, payload text NOT NULL,
        PRIMARY KEY (run, step, n));
INSERT INTO "runbook_undo" VALUES('fill-20261201-025718-1d89','fill',1,5,'[[1,"''two''"],[2,"''one''"],[3,"''two''"],[4,"''one''"],[5,"''two''"]]');
INSERT INTO "runbook_undo" VALUES('fill-20261201-025718-1d89','fill',2,5,'[[6,"''one''"],[7,"''two''"],[8,"''one''"],[9,"''two''"],[10,"''one''"]]');
INSERT INTO "runbook_undo" VALUES('fill-20261201-025718-1d89','fill',4,2,'[[11,"''two''"],[12,"''one''"]]');
INSERT INTO "runbook_undo" VALUES('fill-20261201-025718-1d89','fill',8,5,'[[14,"''one''"],[15,"''two''"],[16,"''one''"],[17,"''two''"],[18,"''one''"]]');
INSERT INTO "runbook_undo" VALUES('fill-20261201-025718-1d89','fill',9,2,'[[19,"''two''"],[20,"''one''"]]');
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
INSERT INTO "t" VALUES(19,2,'two',NULL);
INSERT INTO "t" VALUES(20,1,'one',NULL);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runbook_anchor',1);
INSERT INTO "sqlite_sequence" VALUES('runbook_act',13);
COMMIT;
