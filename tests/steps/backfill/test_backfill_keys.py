"""Which row a key names: over inherited tables, in SQLite's own kinds of values, under collations, after a table was replaced."""

from __future__ import annotations

import contextlib
import uuid

import psycopg
import pytest
from databases import Database
from filling import adds_up, backfill, ledger, run
from plain_context import Trial

from steps.contract import Paused, StepError

on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
SOURCE = "CREATE TABLE s (k integer PRIMARY KEY, v text); INSERT INTO s VALUES (1, 'one');"


def step(**words):
    own = {"table": "t", "source": "SELECT k, v FROM s", "match": "source.k = target.k", "fill": ["v"], "order": "key"}
    return backfill(**{**own, "batch": {"time": "10 s", "rows": [3, 3]}, **words})


def whole_life(database: Database, **words) -> None:
    """Filled in small batches by key and by the default order, killed on the way, and taken back for exactly its rows."""
    before = database.rows("SELECT count(*), count(v) FROM t")
    for order in ("key", "auto"):
        trial = Trial(database, step(order=order, **words))
        assert trial.preflight() == []
        with contextlib.suppress(KeyboardInterrupt):
            trial.dying_before("batch 2").apply()
        result, _ = run(trial)
        [(rows, had)] = before
        assert adds_up(result)
        assert (result.visited, result.written, result.left, result.dead) == (rows, rows - had, 0, 0)
        assert database.value("SELECT count(*) FROM t WHERE v IS NULL") == 0
        again = Trial(database, step(order=order, expect_work=False, **words))
        assert run(again)[0].written == 0
        trial.revert()
        assert database.rows("SELECT count(*), count(v) FROM t") == before
        assert database.rows(f"SELECT key FROM {ledger(database, 'skipped_row')}") == []


def preflight(database: Database, **words) -> str:
    return "\n".join(Trial(database, step(**words)).preflight())


# ─── inheritance and partitions ─────────────────────────────────────────────────────────────────────────────────────
HEIRS = """CREATE TABLE t (id integer PRIMARY KEY, k integer, v text);
    CREATE TABLE a (PRIMARY KEY (id)) INHERITS (t); CREATE TABLE b (PRIMARY KEY (id)) INHERITS (t);
    INSERT INTO t SELECT i, 1 FROM generate_series(1, 5) i; INSERT INTO a SELECT i, 1 FROM generate_series(1, 10) i;
    INSERT INTO b SELECT i, 1, CASE WHEN i % 3 = 0 THEN 'one' END FROM generate_series(1, 12) i;"""


@on_postgresql
def test_same_key_in_several_children(empty_database: Database) -> None:
    """Each row is itself; what stood in one of them before is never taken for the run's."""
    empty_database.script(SOURCE + HEIRS)
    before = empty_database.rows("SELECT tableoid::regclass::text, id, v FROM t ORDER BY 1, 2")
    whole_life(empty_database)
    assert empty_database.rows("SELECT tableoid::regclass::text, id, v FROM t ORDER BY 1, 2") == before


FOREIGN = """CREATE EXTENSION file_fdw; CREATE SERVER f FOREIGN DATA WRAPPER file_fdw;
    CREATE FOREIGN TABLE far (id integer NOT NULL, k integer, v text) SERVER f OPTIONS (filename '/dev/null');
    ALTER FOREIGN TABLE far INHERIT t"""


@on_postgresql
@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("ALTER TABLE b DROP CONSTRAINT b_pkey", "in public.b no unique index"),
        ("CREATE TABLE c () INHERITS (a)", "in public.c no unique index"),
        (
            "ALTER TABLE b DROP CONSTRAINT b_pkey; CREATE UNIQUE INDEX ON b (id) WHERE id > 5",
            "in public.b no unique index",
        ),
        ("ALTER TABLE b DROP CONSTRAINT b_pkey; CREATE UNIQUE INDEX ON b ((id + 0))", "in public.b no unique index"),
        (FOREIGN, "foreign table public.far"),
    ],
)
def test_children_without_the_key_are_refused(empty_database: Database, more: str, reason: str) -> None:
    empty_database.script(SOURCE + HEIRS)
    try:
        empty_database.script(more)
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server has no file_fdw")
    assert reason in preflight(empty_database)


@on_postgresql
def test_partitions_with_keys_of_their_own(empty_database: Database) -> None:
    empty_database.script(SOURCE + """CREATE TABLE t (id integer NOT NULL, k integer, v text) PARTITION BY LIST (k);
        CREATE TABLE a PARTITION OF t FOR VALUES IN (1); CREATE TABLE b PARTITION OF t FOR VALUES IN (2);
        INSERT INTO t SELECT i % 20, 1 + i / 20 FROM generate_series(0, 39) i; INSERT INTO s VALUES (2, 'two');
        CREATE UNIQUE INDEX ON a (id);""")  # fmt: skip
    assert "in public.b no unique index" in preflight(empty_database, key="id")
    empty_database.script("CREATE UNIQUE INDEX ON b (id)")
    whole_life(empty_database, key="id")


# ─── PostgreSQL's keys ──────────────────────────────────────────────────────────────────────────────────────────────
@on_postgresql
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("double precision", "'NaN', 'Infinity', '-Infinity', 0, 0.1, 1e-300, 0.30000000000000004, 1e300"),
        ("real", "'NaN', 0.1, 1e-30, 16777216, 3.4e38"),
        ("numeric", "'NaN', 1.10, 12345678901234567890.5, -0.0001"),
        ("money", "0.01, 12.34, -5"),
        ("uuid", "'00000000-0000-0000-0000-000000000001', 'ffffffff-0000-0000-0000-000000000001'"),
        ("char(4)", "'a', 'ab', ''"),
        ('"char"', "'a', 'B'"),
        ("text", "'', ' ', 'a', 'A', '[\"', 'real:1', E'\\n'"),
        ("interval", "'1 day', '25 hours', '1 mon'"),
        ("timestamptz", "'infinity', '4000-01-01 BC', '2024-03-31 02:30:00.000001+01'"),
        ("bytea", "'\\x', '\\x00', '\\xff'"),
        ("integer[]", "'{}', '{1,NULL}', '{1}'"),
        ("int4range", "'empty', '[1,3)', '(,)'"),
        ("jsonb", "'{}', '1', '{\"a\": [1]}'"),
        ("mood", "'glad', 'sad'"),
        ("pair", "'(1,a)', '(1,b)', '(,c)'"),
        ("worded", "'a', 'b'"),
        ("bit(3)", "'101', '111'"),
        ("inet", "'10.0.0.1', '10.0.0.1/8'"),
        ('text COLLATE "folded"', "'a', 'B', 'c'"),
    ],
)
def test_key_of_any_type(empty_database: Database, kind: str, values: str) -> None:
    empty_database.script("""CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a integer, b text);
        CREATE DOMAIN worded AS varchar(5) CHECK (VALUE <> '')""")
    if "folded" in kind and not folded(empty_database):
        return
    plain = kind.partition(" COLLATE")[0]
    rows = ", ".join(f"(CAST({one} AS {plain}), 1)" for one in split(values))
    empty_database.script(
        f"{SOURCE} CREATE TABLE t (id {kind} PRIMARY KEY, k integer, v text); INSERT INTO t (id, k) VALUES {rows}"
    )
    whole_life(empty_database)


def split(values: str) -> list[str]:
    """At the commas outside of quotes."""
    found, quoted = [""], False
    for sign in values:
        quoted ^= sign == "'"
        if sign == "," and not quoted:
            found.append("")
        else:
            found[-1] += sign
    return found


def folded(database: Database) -> bool:
    try:
        database.script("CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:  # a server built without ICU
        return False
    return True


@on_postgresql
def test_index_that_is_less_strict_than_the_column(empty_database: Database) -> None:
    """Two rows that the column's collation takes for equal: the index of another one doesn't tell them apart by it."""
    if not folded(empty_database):
        return
    empty_database.script(SOURCE + """CREATE TABLE t (id text COLLATE folded NOT NULL, k integer, v text);
        CREATE UNIQUE INDEX ON t (id COLLATE "C"); INSERT INTO t VALUES ('a', 1), ('A', 1);""")  # fmt: skip
    assert "no unique index has exactly these columns" in preflight(empty_database, key="id")


@on_postgresql
def test_float_key_that_is_written_short_is_refused(empty_database: Database) -> None:
    empty_database.script(
        SOURCE + "CREATE TABLE t (id float8 PRIMARY KEY, k integer, v text); INSERT INTO t VALUES (0.1, 1)"
    )
    empty_database.script(f"ALTER DATABASE {empty_database.name} SET extra_float_digits = 0")
    assert "extra_float_digits is below 1" in preflight(empty_database)


@on_postgresql
def test_operators_out_of_sight_are_named(empty_database: Database) -> None:
    """Of the key and of the match, on either side: what SQL would compare as text, or not at all."""
    try:
        empty_database.script("CREATE SCHEMA there; CREATE EXTENSION citext SCHEMA there")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server has no citext")
    empty_database.script("""CREATE TABLE t (id integer PRIMARY KEY, k there.citext UNIQUE NOT NULL, v text);
        INSERT INTO t VALUES (1, 'A'); CREATE TABLE s (k there.citext PRIMARY KEY, v text); INSERT INTO s VALUES ('a', 'one')""")
    for words in (
        {},
        {"key": "k", "match": "source.k = target.id::text"},
        {"match": "source.k = lower(target.k::text)"},
    ):
        found = preflight(empty_database, **words)
        assert "of type there.citext lie in schema there, which is not on the search path" in found
    empty_database.script(f'ALTER DATABASE {empty_database.name} SET search_path = "$user", public, there')
    whole_life(empty_database)
    whole_life(empty_database, key="k")


@on_postgresql
def test_replaced_table_is_noticed(empty_database: Database) -> None:
    """In a pause and before the way back; VACUUM FULL and CLUSTER leave it the table that it was."""
    empty_database.script(
        SOURCE
        + "CREATE TABLE t (id integer PRIMARY KEY, k integer, v text); INSERT INTO t SELECT i, 1 FROM generate_series(1, 9) i"
    )
    trial = Trial(empty_database, step(pause_after={"batches": 1}))
    with pytest.raises(Paused):
        run(trial)
    empty_database.script("VACUUM FULL t")
    other = Trial(empty_database, step(pause_after={"batches": 1}))
    with pytest.raises(Paused):
        run(other)
    run(trial)
    empty_database.script(
        "CREATE TABLE u (LIKE t INCLUDING ALL); INSERT INTO u SELECT * FROM t; DROP TABLE t; ALTER TABLE u RENAME TO t"
    )
    with pytest.raises(StepError, match="is another table than the one"):
        run(other)
    with pytest.raises(StepError, match="it is another table now"):
        trial.revert()
    assert empty_database.value("SELECT count(v) FROM t") == 9


@on_postgresql
def test_table_that_got_children_is_noticed(empty_database: Database) -> None:
    empty_database.script(
        SOURCE
        + "CREATE TABLE t (id integer PRIMARY KEY, k integer, v text); INSERT INTO t SELECT i, 1 FROM generate_series(1, 9) i"
    )
    trial = Trial(empty_database, step(pause_after={"batches": 1}))
    with pytest.raises(Paused):
        run(trial)
    empty_database.script("CREATE TABLE u (PRIMARY KEY (id)) INHERITS (t); INSERT INTO u VALUES (1, 1)")
    with pytest.raises(StepError, match="told apart by id when this pass began"):
        run(trial)


# ─── SQLite's keys ──────────────────────────────────────────────────────────────────────────────────────────────────
@on_sqlite
@pytest.mark.parametrize("form", ["", " WITHOUT ROWID"])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("BINARY(16)", [uuid.UUID(int=n * 2**100 + 255).bytes for n in range(7)] + [b"", b"\0"]),
        ("NUMERIC", [0.1, 1e-5, 3, -7.25, 1e300, 12345678.125, "word", b"\0\xff"]),
        ("DATETIME", [2460400.5, 2460400.500001, "2024-01-01", 1704067200]),
        ("REAL", [1, 0.1, float("inf"), float("-inf"), 0.30000000000000004]),
        ("TEXT", ["real:1", "blob:00", "text:", "a", "A", "[1]", '"', "'", ""]),
        ("INTEGER", [2**63 - 1, -(2**63), 0]),
        ("", [1, "1", b"1", 1.5]),
        ("BLOB", [b"a", "a", 1]),
    ],
)
def test_key_is_what_is_stored(empty_database: Database, kind: str, values: list, form: str) -> None:
    """Whatever the column's type says, SQLite keeps values of any kind in it."""
    empty_database.script(f"{SOURCE} CREATE TABLE t (id {kind} NOT NULL, k integer, v text, PRIMARY KEY (id)){form}")
    with contextlib.closing(empty_database.connect()) as connection:
        connection.executemany("INSERT INTO t (id, k) VALUES (?, 1)", [(one,) for one in values])
    whole_life(empty_database)
    empty_database.script("UPDATE t SET v = 'own'")
    assert empty_database.value("SELECT count(*) FROM t WHERE v = 'own'") == len(values)


@on_sqlite
def test_null_in_a_primary_key_is_refused(empty_database: Database) -> None:
    """SQLite allows it; where such a row comes later, it is dead by name."""
    empty_database.script(
        SOURCE
        + "CREATE TABLE t (id text PRIMARY KEY, k integer, v text); INSERT INTO t VALUES ('a', 1, NULL), (NULL, 1, NULL)"
    )
    assert "it is NULL in 1 rows" in preflight(empty_database)
    empty_database.script("DELETE FROM t WHERE id IS NULL")
    whole_life(empty_database)

    def insert(progress):
        if progress.done == 0:
            empty_database.script("INSERT INTO t VALUES (NULL, 1, NULL)")

    result, _ = run(
        Trial(
            empty_database,
            step(order="auto", batch={"time": "10 s", "rows": [10, 10]}, dead_letters={"max": 9, "pct": 100}),
        ),
        insert,
    )
    assert (result.dead + result.left > 0, result.written) == (True, 1)


@on_sqlite
def test_index_of_another_collation_than_the_column(empty_database: Database) -> None:
    empty_database.script(f"""{SOURCE} CREATE TABLE t (id TEXT COLLATE NOCASE NOT NULL, k integer, v text);
        CREATE UNIQUE INDEX t_id ON t (id COLLATE BINARY); INSERT INTO t VALUES ('a', 1, NULL), ('B', 1, NULL)""")
    assert preflight(empty_database, key="id", order="auto") == ""
    empty_database.script("INSERT INTO t VALUES ('A', 1, NULL)")
    assert "equal under the column's collation" in preflight(empty_database, key="id", order="auto")


@on_sqlite
@pytest.mark.parametrize(
    "kind",
    [
        "INTEGER PRIMARY KEY",
        "INTEGER PRIMARY KEY DESC NOT NULL",
        "INT PRIMARY KEY NOT NULL",
        "integer primary key autoincrement",
    ],
)
def test_kinds_of_integer_key(empty_database: Database, kind: str) -> None:
    empty_database.script(
        f"{SOURCE} CREATE TABLE t (id {kind}, k integer, v text);"
        "INSERT INTO t VALUES (5, 1, NULL), (2, 1, NULL), (9, 1, 'x'), (-4, 1, NULL)"
    )
    found = preflight(empty_database)
    if "DESC" in kind:
        assert "no unique index" in found  # descending, so no order to page by
    else:
        whole_life(empty_database)


def test_keys_that_move_past_the_bound(empty_database: Database) -> None:
    """In a pause, to both sides: the sweep looks at the whole table, whatever the order was."""
    empty_database.script(SOURCE + "CREATE TABLE t (id integer PRIMARY KEY, k integer, v text);")
    for n in range(1, 31):
        empty_database.script(f"INSERT INTO t VALUES ({n}, 1, NULL)")
    orders = (
        [("key", 1000), ("auto", 5000)] if empty_database.dialect == "sqlite" else [("key", 1000)]
    )  # by row id, or pages
    for order, shift in orders:
        trial = Trial(empty_database, step(order=order, pause_after={"batches": 2}))
        with pytest.raises(Paused):
            run(trial)
        keys = [row[0] for row in empty_database.rows("SELECT id FROM t WHERE v IS NULL ORDER BY id LIMIT 4")]
        empty_database.script(
            f"UPDATE t SET id = id + {shift} WHERE id IN ({keys[0]}, {keys[1]}); UPDATE t SET id = -{shift} WHERE id = {keys[2]}"
        )
        result, _ = run(trial)
        assert (result.left, result.dead, result.in_range == result.visited) == (0, 0, True)
        assert empty_database.value("SELECT count(*) FROM t WHERE v IS NULL") == 0
        trial.revert()
        assert empty_database.value("SELECT count(v) FROM t") == 0
