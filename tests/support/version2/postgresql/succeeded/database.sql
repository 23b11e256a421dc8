CREATE SCHEMA runbook;
CREATE TABLE public.s (
    k integer NOT NULL,
    v text
);
CREATE TABLE public.t (
    id integer NOT NULL,
    k integer,
    v text,
    reviewed text,
    CONSTRAINT t_v_check CHECK ((v <> 'refused'::text))
);
CREATE TABLE runbook.act (
    seq bigint NOT NULL,
    run text NOT NULL,
    step text NOT NULL,
    action text NOT NULL,
    label text NOT NULL,
    epoch bigint NOT NULL,
    before text,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE runbook.act ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME runbook.act_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE runbook.anchor (
    seq bigint NOT NULL,
    run text NOT NULL,
    what text NOT NULL,
    trail_head text NOT NULL,
    trail_length bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE runbook.anchor ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME runbook.anchor_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE runbook.batch (
    run text NOT NULL,
    step text NOT NULL,
    action text NOT NULL,
    n bigint NOT NULL,
    worker integer NOT NULL,
    lo text,
    hi text,
    seen bigint NOT NULL,
    written bigint NOT NULL,
    already bigint NOT NULL,
    no_key bigint NOT NULL,
    not_in_source bigint NOT NULL,
    deferred bigint NOT NULL,
    dead bigint NOT NULL,
    ms double precision NOT NULL,
    server_wal_bytes bigint,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE runbook.control (
    seq bigint NOT NULL,
    run text NOT NULL,
    command text NOT NULL,
    by_whom text NOT NULL,
    reason text NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE runbook.control ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME runbook.control_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE runbook.dead (
    run text NOT NULL,
    step text NOT NULL,
    action text NOT NULL,
    key text NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,
    attempt integer NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE runbook.heartbeat (
    scope text NOT NULL,
    epoch bigint NOT NULL,
    beat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE runbook.lease (
    scope text NOT NULL,
    epoch bigint NOT NULL,
    run text NOT NULL,
    holder text NOT NULL,
    taken_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE runbook.meta (
    name text NOT NULL,
    value text NOT NULL
);
CREATE TABLE runbook.pass (
    run text NOT NULL,
    step text NOT NULL,
    action text NOT NULL,
    document text NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE runbook.run (
    run text NOT NULL,
    playbook text NOT NULL,
    digest text NOT NULL,
    approval_digest text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    target text NOT NULL,
    identity text NOT NULL,
    inputs text NOT NULL,
    operator text NOT NULL,
    host text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    rolled_back_at timestamp with time zone,
    steps text NOT NULL,
    source text NOT NULL,
    figures text NOT NULL,
    trail_head text NOT NULL,
    trail_length bigint NOT NULL
);
CREATE TABLE runbook.step (
    run text NOT NULL,
    step text NOT NULL,
    action text NOT NULL,
    state text NOT NULL,
    results text NOT NULL,
    trail_head text NOT NULL,
    trail_length bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE runbook.undo (
    run text NOT NULL,
    step text NOT NULL,
    n bigint NOT NULL,
    rows bigint NOT NULL,
    payload text[] NOT NULL
);
ALTER TABLE ONLY runbook.undo ALTER COLUMN payload SET STORAGE EXTERNAL;
INSERT INTO public.s VALUES (1, 'one');
INSERT INTO public.s VALUES (2, 'two');
INSERT INTO public.s VALUES (3, 'refused');
INSERT INTO public.t VALUES (13, 3, NULL, NULL);
INSERT INTO public.t VALUES (1, 2, 'two', NULL);
INSERT INTO public.t VALUES (2, 1, 'one', NULL);
INSERT INTO public.t VALUES (3, 2, 'two', NULL);
INSERT INTO public.t VALUES (4, 1, 'one', NULL);
INSERT INTO public.t VALUES (5, 2, 'two', NULL);
INSERT INTO public.t VALUES (6, 1, 'one', NULL);
INSERT INTO public.t VALUES (7, 2, 'two', NULL);
INSERT INTO public.t VALUES (8, 1, 'one', NULL);
INSERT INTO public.t VALUES (9, 2, 'two', NULL);
INSERT INTO public.t VALUES (10, 1, 'one', NULL);
INSERT INTO public.t VALUES (11, 2, 'two', NULL);
INSERT INTO public.t VALUES (12, 1, 'one', NULL);
INSERT INTO public.t VALUES (14, 1, 'one', NULL);
INSERT INTO public.t VALUES (15, 2, 'two', NULL);
INSERT INTO public.t VALUES (16, 1, 'one', NULL);
INSERT INTO public.t VALUES (17, 2, 'two', NULL);
INSERT INTO public.t VALUES (18, 1, 'one', NULL);
INSERT INTO public.t VALUES (19, 2, 'two', NULL);
INSERT INTO public.t VALUES (20, 1, 'one', NULL);
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (1, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'begin', 3, '{"table":"\"public\".\"t\"","key":[{"name":"id","type":"integer","row":false}],"fill":[{"name":"v","type":"text","row":false}],"oid":16744}', '2026-12-01 02:57:30.316807+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (2, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'batch 1', 3, NULL, '2026-12-01 02:57:30.366726+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (3, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'batch 2', 3, NULL, '2026-12-01 02:57:30.373694+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (4, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'batch 4', 3, NULL, '2026-12-01 02:57:30.379069+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (5, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'batch 7', 3, NULL, '2026-12-01 02:57:30.395575+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (6, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'batch 8', 3, NULL, '2026-12-01 02:57:30.398564+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (7, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'batch 9', 3, NULL, '2026-12-01 02:57:30.401202+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (8, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'sweep 10', 3, NULL, '2026-12-01 02:57:30.405597+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (9, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'end 11', 3, NULL, '2026-12-01 02:57:30.410405+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (10, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'reopen 10', 5, NULL, '2026-12-01 02:57:31.243829+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (11, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'sweep 11', 5, '{"table":"\"public\".\"t\"","key":[{"name":"id","type":"integer","row":false}],"fill":[{"name":"v","type":"text","row":false}],"oid":16744}', '2026-12-01 02:57:31.268604+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (12, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'batch 12', 5, NULL, '2026-12-01 02:57:31.315634+00');
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (13, 'fill-20261201-025728-ae6c', 'fill', 'apply', 'end 13', 5, NULL, '2026-12-01 02:57:31.321185+00');
INSERT INTO runbook.anchor OVERRIDING SYSTEM VALUE VALUES (1, 'fill-20261201-025728-ae6c', 'the approval of go', '8b03bcce2aec561c72bad2d0fbf2c1c53103f6fb3c7a2f9c54b43ced37f1ebf4', 9, '2026-12-01 02:57:29.402663+00');
INSERT INTO runbook.batch VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 1, 0, '', '["5"]', 5, 5, 0, 0, 0, 0, 0, 0.351, 360, '2026-12-01 02:57:30.365805+00');
INSERT INTO runbook.batch VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 2, 0, '["5"]', '["10"]', 5, 5, 0, 0, 0, 0, 0, 0.294, 360, '2026-12-01 02:57:30.373158+00');
INSERT INTO runbook.batch VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 4, 0, '["10"]', '["12"]', 2, 2, 0, 0, 0, 0, 0, 0.135, 144, '2026-12-01 02:57:30.378555+00');
INSERT INTO runbook.batch VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 7, 0, '["12"]', '["13"]', 1, 0, 0, 0, 0, 0, 1, 0, NULL, '2026-12-01 02:57:30.395364+00');
INSERT INTO runbook.batch VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 8, 0, '["13"]', '["18"]', 5, 5, 0, 0, 0, 0, 0, 0.15, 360, '2026-12-01 02:57:30.397914+00');
INSERT INTO runbook.batch VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 9, 0, '["18"]', '["20"]', 2, 2, 0, 0, 0, 0, 0, 0.126, 144, '2026-12-01 02:57:30.400598+00');
INSERT INTO runbook.batch VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 10, -1, '', '', 0, 0, 0, 0, 0, 1, -1, 0, NULL, '2026-12-01 02:57:31.242897+00');
INSERT INTO runbook.batch VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 12, -1, '["13"]', '["13"]', 0, 0, 0, 0, 0, -1, 1, 0, NULL, '2026-12-01 02:57:31.315051+00');
INSERT INTO runbook.dead VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', '["13"]', '23514', 'new row for relation "t" violates check constraint "t_v_check" (in: WITH rb_j AS MATERIALIZED (SELECT rb_w.*, source."v" AS rb_v0, CASE WHEN NOT rb_w.rb_inside THEN ''outside'' WHEN NOT rb_w.rb_needs THEN ''already'' WHEN rb_w.rb_m0…)', 2, '2026-12-01 02:57:30.394791+00');
INSERT INTO runbook.heartbeat VALUES ('target', 5, '2026-12-01 02:57:31.206855+00');
INSERT INTO runbook.lease VALUES ('target', 6, '', '{"operator":"dana","user":"dana","host":"db1","pid":1199,"started":1796093850.02,"versions":{"runbook":"0.1.0","python":"3.11.7","system":"Linux 6.1"},"boot_id":"4b4006ef-0d2d-4f65-8116-def0830d5e20","pid_ns":"pid:[4026531836]","ticks":634902}', '2026-12-01 02:57:31.206328+00');
INSERT INTO runbook.meta VALUES ('version', '2');
INSERT INTO runbook.pass VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', '{"route":{"kind":"key","columns":[{"name":"id","type":"integer","row":false}],"why":"the playbook asks for the key''s order"},"start":{"ranges":[{"kind":"keys","lo":"","hi":"[\"20\"]","heap":0}],"rows":20,"bytes":32768,"oid":16744,"key":["id"],"start_xid":"784","heap":16744,"rows_per_page":1.0},"paused":false,"finished":true,"left":0}', '2026-12-01 02:57:30.316001+00');
INSERT INTO runbook.run VALUES ('fill-20261201-025728-ae6c', 'fill', '67816ae2a34e2fbe3e423a478a53e0426d44957c1c47709cd57ccc0d9a7526ad', 'df83198abf610d09a6c5fe7c5325ee7cc725df56940033e1d2774fd4e7bf50ff', 'real', 'succeeded', 'postgresql://owner@/test_3?host=/tmp/tmpgj22dvhk/pg15/socket', '{"name": "postgresql://owner@/test_3?host=/tmp/tmpgj22dvhk/pg15/socket", "host": "/tmp/tmpgj22dvhk/pg15/socket", "dbname": "test_3", "user": "owner", "dialect": "postgresql", "database": "test_3", "database_oid": 16736, "standby": false, "address": "", "port": 5432, "up_since": "1796093835.525847", "dialed": "/tmp/tmpgj22dvhk/pg15/socket:5432", "server": "vm:/tmp/tmpgj22dvhk/pg15/socket:5432", "schema": "public", "system": "7714164282391597495", "timeline": 1}', '{}', 'dana', 'db1', '2026-12-01 02:57:28.626293+00', '2026-12-01 02:57:31.345461+00', NULL, '{"add": "2738cac9c01d90dc830c3a28ba65e64642f7de03680f64e594fe202d0fc2da87", "go": "13eef6d34f6a1304f72e04f3976ef456216be3dfe952cbbc808f8101d4409e1a", "fill": "dedfb2cca1bc4fe5c1408303542339cae32fb2f43f2fc4264aa00fee90d6c300"}', '{"fill.yaml": "# The playbook of the runs in this folder: a column, a gate, and a backfill of four batches with one row that the table refuses.\nrunbook: 1\nname: fill\ntitle: Add a column, and fill another one behind a gate\nsteps:\n  - {id: add, type: add_column, column: t.reviewed, of_type: text}\n  - id: go\n    type: checkpoint\n    message: Read the plan, then say yes\n    approval: {roles: [dba], need: 1}\n  - id: fill\n    type: backfill\n    table: t\n    key: id\n    order: key\n    source: SELECT k, v FROM s\n    match: source.k = target.k\n    fill: [v]\n    batch: {time: 1 s, rows: [5, 5]}\n    throttle: {batch: 1 s, rest: 1}\n    dead_letters: {max: 2, pct: 20}\n    success_criteria:\n      - {id: nothing_left, that: visited == in_range and deferred == 0 and dead <= 2}\nsuccess_criteria:\n  - {id: filled, check: query, query: \"SELECT count(v) AS n FROM t\", that: n == 19}\nrollback: reverse\n"}', '{"nothing_left": {"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.035, "rows_per_second": 569.1, "batches": 8}, "fill": {"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.035, "rows_per_second": 569.1, "batches": 8}, "filled": {"rows": 1, "n": 19}}', '8f87ed647f5e66d15d6d92b47568fbc4c29a21f564556e95c281b6bc0d5e29c8', 29);
INSERT INTO runbook.step VALUES ('fill-20261201-025728-ae6c', 'add', 'apply', 'already_so', '{}', 'ae0a0cb3f214e0813a48f0a27a76046bb211a10c9ddd7f93aadad576c6f86257', 5, '2026-12-01 02:57:28.681377+00');
INSERT INTO runbook.step VALUES ('fill-20261201-025728-ae6c', 'go', 'apply', 'passed', '{"approval_digest": "df83198abf610d09a6c5fe7c5325ee7cc725df56940033e1d2774fd4e7bf50ff", "approved_by": ["ines"], "until": ""}', '009fe8994688386101cb7eba9b8b426f8c9423d32ef71be82c248828a2610056', 13, '2026-12-01 02:57:30.25163+00');
INSERT INTO runbook.step VALUES ('fill-20261201-025728-ae6c', 'fill', 'apply', 'done', '{"in_range": 20, "at_start": 20, "visited": 20, "written": 19, "already": 0, "no_key": 0, "not_in_source": 0, "deferred": 0, "dead": 1, "dead_pct": 5.0, "left": 0, "late": 0, "seconds": 0.035, "rows_per_second": 569.1, "batches": 8}', '5c9d6e1a826987d6137a5d4d21ad1cc0e50684e083260b2c3d347ca334480def', 27, '2026-12-01 02:57:30.422721+00');
INSERT INTO runbook.undo VALUES ('fill-20261201-025728-ae6c', 'fill', 1, 5, '{{1,two},{2,one},{3,two},{4,one},{5,two}}');
INSERT INTO runbook.undo VALUES ('fill-20261201-025728-ae6c', 'fill', 2, 5, '{{6,one},{7,two},{8,one},{9,two},{10,one}}');
INSERT INTO runbook.undo VALUES ('fill-20261201-025728-ae6c', 'fill', 4, 2, '{{11,two},{12,one}}');
INSERT INTO runbook.undo VALUES ('fill-20261201-025728-ae6c', 'fill', 8, 5, '{{14,one},{15,two},{16,one},{17,two},{18,one}}');
INSERT INTO runbook.undo VALUES ('fill-20261201-025728-ae6c', 'fill', 9, 2, '{{19,two},{20,one}}');
SELECT pg_catalog.setval('runbook.act_seq_seq', 13, true);
SELECT pg_catalog.setval('runbook.anchor_seq_seq', 1, true);
SELECT pg_catalog.setval('runbook.control_seq_seq', 1, false);
ALTER TABLE ONLY public.s
    ADD CONSTRAINT s_pkey PRIMARY KEY (k);
ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (id);
ALTER TABLE ONLY runbook.act
    ADD CONSTRAINT act_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY runbook.act
    ADD CONSTRAINT act_run_step_action_label_key UNIQUE (run, step, action, label);
ALTER TABLE ONLY runbook.anchor
    ADD CONSTRAINT anchor_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY runbook.batch
    ADD CONSTRAINT batch_pkey PRIMARY KEY (run, step, action, n);
ALTER TABLE ONLY runbook.control
    ADD CONSTRAINT control_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY runbook.dead
    ADD CONSTRAINT dead_pkey PRIMARY KEY (run, step, action, key);
ALTER TABLE ONLY runbook.heartbeat
    ADD CONSTRAINT heartbeat_pkey PRIMARY KEY (scope);
ALTER TABLE ONLY runbook.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (scope);
ALTER TABLE ONLY runbook.meta
    ADD CONSTRAINT meta_pkey PRIMARY KEY (name);
ALTER TABLE ONLY runbook.pass
    ADD CONSTRAINT pass_pkey PRIMARY KEY (run, step, action);
ALTER TABLE ONLY runbook.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (run);
ALTER TABLE ONLY runbook.step
    ADD CONSTRAINT step_pkey PRIMARY KEY (run, step, action);
ALTER TABLE ONLY runbook.undo
    ADD CONSTRAINT undo_pkey PRIMARY KEY (run, step, n);
