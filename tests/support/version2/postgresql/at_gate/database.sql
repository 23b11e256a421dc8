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
INSERT INTO public.t VALUES (1, 2, NULL, NULL);
INSERT INTO public.t VALUES (2, 1, NULL, NULL);
INSERT INTO public.t VALUES (3, 2, NULL, NULL);
INSERT INTO public.t VALUES (4, 1, NULL, NULL);
INSERT INTO public.t VALUES (5, 2, NULL, NULL);
INSERT INTO public.t VALUES (6, 1, NULL, NULL);
INSERT INTO public.t VALUES (7, 2, NULL, NULL);
INSERT INTO public.t VALUES (8, 1, NULL, NULL);
INSERT INTO public.t VALUES (9, 2, NULL, NULL);
INSERT INTO public.t VALUES (10, 1, NULL, NULL);
INSERT INTO public.t VALUES (11, 2, NULL, NULL);
INSERT INTO public.t VALUES (12, 1, NULL, NULL);
INSERT INTO public.t VALUES (13, 3, NULL, NULL);
INSERT INTO public.t VALUES (14, 1, NULL, NULL);
INSERT INTO public.t VALUES (15, 2, NULL, NULL);
INSERT INTO public.t VALUES (16, 1, NULL, NULL);
INSERT INTO public.t VALUES (17, 2, NULL, NULL);
INSERT INTO public.t VALUES (18, 1, NULL, NULL);
INSERT INTO public.t VALUES (19, 2, NULL, NULL);
INSERT INTO public.t VALUES (20, 1, NULL, NULL);
INSERT INTO runbook.act OVERRIDING SYSTEM VALUE VALUES (1, 'fill-20261201-025724-2e99', 'add', 'apply', 'add', 1, '{"table":"t","column":"reviewed","transaction":"","value":null}', '2026-12-01 02:57:24.582802+00');
INSERT INTO runbook.heartbeat VALUES ('target', 1, '2026-12-01 02:57:24.48855+00');
INSERT INTO runbook.lease VALUES ('target', 2, '', '{"operator":"dana","user":"dana","host":"db1","pid":686,"started":1796093843.23,"versions":{"runbook":"0.1.0","python":"3.11.7","system":"Linux 6.1"},"boot_id":"4b4006ef-0d2d-4f65-8116-def0830d5e20","pid_ns":"pid:[4026531836]","ticks":634223}', '2026-12-01 02:57:24.487949+00');
INSERT INTO runbook.meta VALUES ('version', '2');
INSERT INTO runbook.run VALUES ('fill-20261201-025724-2e99', 'fill', '67816ae2a34e2fbe3e423a478a53e0426d44957c1c47709cd57ccc0d9a7526ad', 'bfe14e631a6759a7bf9d80e6de6e613109971e601f1196e7a91283bfa7964307', 'real', 'waiting', 'postgresql://owner@/test_1?host=/tmp/tmpgj22dvhk/pg15/socket', '{"name": "postgresql://owner@/test_1?host=/tmp/tmpgj22dvhk/pg15/socket", "host": "/tmp/tmpgj22dvhk/pg15/socket", "dbname": "test_1", "user": "owner", "dialect": "postgresql", "database": "test_1", "database_oid": 16384, "standby": false, "address": "", "port": 5432, "up_since": "1796093835.525847", "dialed": "/tmp/tmpgj22dvhk/pg15/socket:5432", "server": "vm:/tmp/tmpgj22dvhk/pg15/socket:5432", "schema": "public", "system": "7714164282391597495", "timeline": 1}', '{}', 'dana', 'db1', '2026-12-01 02:57:24.496432+00', '2026-12-01 02:57:24.639282+00', NULL, '{"add": "2738cac9c01d90dc830c3a28ba65e64642f7de03680f64e594fe202d0fc2da87", "go": "13eef6d34f6a1304f72e04f3976ef456216be3dfe952cbbc808f8101d4409e1a", "fill": "dedfb2cca1bc4fe5c1408303542339cae32fb2f43f2fc4264aa00fee90d6c300"}', '{"fill.yaml": "# The playbook of the runs in this folder: a column, a gate, and a backfill of four batches with one row that the table refuses.\nrunbook: 1\nname: fill\ntitle: Add a column, and fill another one behind a gate\nsteps:\n  - {id: add, type: add_column, column: t.reviewed, of_type: text}\n  - id: go\n    type: checkpoint\n    message: Read the plan, then say yes\n    approval: {roles: [dba], need: 1}\n  - id: fill\n    type: backfill\n    table: t\n    key: id\n    order: key\n    source: SELECT k, v FROM s\n    match: source.k = target.k\n    fill: [v]\n    batch: {time: 1 s, rows: [5, 5]}\n    throttle: {batch: 1 s, rest: 1}\n    dead_letters: {max: 2, pct: 20}\n    success_criteria:\n      - {id: nothing_left, that: visited == in_range and deferred == 0 and dead <= 2}\nsuccess_criteria:\n  - {id: filled, check: query, query: \"SELECT count(v) AS n FROM t\", that: n == 19}\nrollback: reverse\n"}', '{}', '21d7742187c77adc2f225c0a10d1a1d4923dfc3aaff1dfb35dcbf06163e3933b', 9);
INSERT INTO runbook.step VALUES ('fill-20261201-025724-2e99', 'add', 'apply', 'done', '{}', '0420a7e2d2cf4583a2cf0986b33fb5e5d90ad057ac6b4e18048ce36fd1ed7d87', 6, '2026-12-01 02:57:24.625918+00');
SELECT pg_catalog.setval('runbook.act_seq_seq', 1, true);
SELECT pg_catalog.setval('runbook.anchor_seq_seq', 1, false);
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
