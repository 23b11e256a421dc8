"""Whatever the type of a column: it is filled, and what plan promises of taking it back holds."""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from databases import Database
from filling import backfill, ledger, run
from plain_context import Trial

pytestmark = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)

# Of each built-in type, array and range a value; the second is another one, though some types' `=` takes it for the same.
TYPES = {
    "smallint": ("1", "2"),
    "integer": ("-2147483648", "2"),
    "bigint": ("9223372036854775807", "1"),
    "numeric": ("1.0", "1.00"),
    "numeric(9, 3)": ("1.5", "1.501"),
    "real": ("0.1", "0.2"),
    "double precision": ("0", "-0"),
    "money": ("12.34", "12.35"),
    "text": ("a", "A"),
    'text COLLATE "folded"': ("a", "A"),
    "varchar(9)": ("x", "x "),
    "char(5)": ("x", "y"),
    '"char"': ("x", "y"),
    "name": ("x", "y"),
    "bytea": ("\\x00ff", "\\x00"),
    "boolean": ("true", "false"),
    "date": ("infinity", "2024-02-29"),
    "time": ("24:00", "23:59:59.999999"),
    "timetz": ("12:00+02", "10:00+00"),
    "timestamp": ("4000-01-01 BC", "2024-01-01"),
    "timestamptz": ("2024-03-31 02:30+01", "2024-03-31"),
    "interval": ("1 day", "24 hours"),
    "uuid": ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"),
    "json": ('{"a": 1}', '{"a":1}'),
    "jsonb": ('{"a": 1.0}', '{"a": 1.00}'),
    "jsonpath": ("$.a", "$.b"),
    "inet": ("10.0.0.1/8", "10.0.0.1"),
    "cidr": ("10.0.0.0/8", "10.0.0.0/9"),
    "macaddr": ("08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    "macaddr8": ("08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:06"),
    "bit(3)": ("101", "100"),
    "bit varying": ("101", "1010"),
    "tsvector": ("a b", "a"),
    "tsquery": ("a & b", "a"),
    "point": ("(1,2)", "(1,2.0000000001)"),
    "line": ("{1,2,3}", "{1,2,4}"),
    "lseg": ("[(0,0),(1,1)]", "[(0,0),(1,2)]"),
    "box": ("(1,1),(0,0)", "(2,1),(1,0)"),
    "path": ("((0,0),(1,1))", "[(0,0),(1,1)]"),
    "polygon": ("((0,0),(1,1))", "((0,0),(1,2))"),
    "circle": ("<(0,0),1>", "<(9,0),1>"),
    "pg_lsn": ("0/1", "0/2"),
    "pg_snapshot": ("10:20:", "10:21:"),
    "xid": ("1", "2"),
    "xid8": ("1", "2"),
    "cid": ("1", "2"),
    "tid": ("(0,1)", "(0,2)"),
    "oid": ("1", "2"),
    "oidvector": ("1 2", "1"),
    "int2vector": ("1 2", "1"),
    "regclass": ("pg_class", "pg_type"),
    "regtype": ("int4", "text"),
    "int4range": ("[1,5)", "[1,6)"),
    "numrange": ("[1.0,5)", "[1.00,5)"),
    "tstzrange": ("[2024-01-01,)", "[2024-01-02,)"),
    "int4multirange": ("{[1,5)}", "{[1,6)}"),
    "integer[]": ("{1,NULL,3}", "{1,3}"),
    "text[]": ('{a,NULL,"b,c"}', "{a}"),
    "json[]": ('{"{\\"a\\": 1}"}', '{"{\\"a\\":1}"}'),
    "point[]": ('{"(1,2)"}', '{"(1,3)"}'),
    "xid[]": ("{1}", "{2}"),
    "integer[][]": ("{{1,2},{3,4}}", "[0:0]={1}"),
    "mood": ("glad", "sad"),
    "mood[]": ("{glad}", "{sad}"),
    "small": ("1", "2"),
    "doc": ("{}", "{ }"),
    "words": ("{a}", "{b}"),
    "pair": ("(1,)", "(2,x)"),
    "empty_pair": ("(,)", "(1,)"),
    "pair[]": ('{"(1,a)"}', '{"(1,b)"}'),
    "floats": ("[1,2)", "[1,3)"),
    "there.citext": ("a", "A"),
    "there.citext[]": ("{a}", "{A}"),
    "there.hstore": ("a=>1", "a=>2"),
    "there.ltree": ("a.b", "a.c"),
    "there.key": ("x", "X"),
}
MADE = """CREATE SCHEMA there; CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE DOMAIN small AS integer CHECK (VALUE < 9);
    CREATE DOMAIN doc AS json; CREATE DOMAIN words AS text[]; CREATE TYPE pair AS (a integer, b text);
    CREATE TYPE empty_pair AS (a integer, b text); CREATE TYPE floats AS RANGE (subtype = float8);"""
EXTENSIONS = ("citext", "hstore", "ltree")


def known(database: Database) -> dict[str, tuple[str, str]]:
    """The types that this server has."""
    database.script(MADE)
    missing = []
    for name in EXTENSIONS:
        try:
            database.script(f"CREATE EXTENSION {name} SCHEMA there")
        except psycopg.Error:  # not among this server's packages
            missing.append(name)
    if "citext" not in missing:
        database.script("CREATE DOMAIN there.key AS there.citext")
    try:
        database.script("CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.Error:  # built without ICU
        missing.append("folded")
    gone = [*missing, *(["there.key"] if "citext" in missing else [])]
    return {one: values for one, values in TYPES.items() if not any(name in one for name in gone)}


def test_value_of_any_type_is_taken_back(empty_database: Database) -> None:
    """And where somebody wrote another value since, be it an equal one, that row is refused and stays."""
    types = known(empty_database)
    names = [f"c{n}" for n in range(len(types))]
    columns = ", ".join(f"{name} {one}" for name, one in zip(names, types, strict=True))
    with contextlib.closing(empty_database.connect()) as connection:
        connection.execute(f"CREATE TABLE t (id integer PRIMARY KEY, k integer, {columns})")
        connection.execute(f"CREATE TABLE s (k integer PRIMARY KEY, {columns})")
        first = ", ".join("'" + one[0].replace("'", "''") + "'" for one in types.values())
        connection.execute(f"INSERT INTO s VALUES (1, {first})")
        connection.execute("INSERT INTO t (id, k) SELECT i, 1 FROM generate_series(0, %s) i", [len(types)])
    trial = Trial(
        empty_database, backfill(table="t", source="SELECT * FROM s", match="source.k = target.k", fill=names)
    )
    assert trial.preflight() == []
    result, _ = run(trial)
    assert (result.written, result.dead, result.left) == (len(types) + 1, 0, 0)
    for n, (kind, (_, other)) in enumerate(types.items()):
        with contextlib.closing(empty_database.connect()) as connection:
            connection.execute(f"UPDATE t SET c{n} = CAST('{other}' AS {kind.partition(' COLLATE')[0]}) WHERE id = {n}")
    before = empty_database.rows("SELECT t::text FROM t ORDER BY id")
    trial.revert()
    refused = {
        row[0]
        for row in empty_database.rows(
            f"SELECT key FROM {ledger(empty_database, 'skipped_row')} WHERE action = 'revert'"
        )
    }
    kinds = [kind for n, kind in enumerate(types) if f'["{n}"]' not in refused]
    assert kinds == []
    assert empty_database.rows("SELECT t::text FROM t WHERE id < %s ORDER BY id", [len(types)]) == before[:-1]
    left = f"SELECT num_nonnulls({', '.join(names)}) FROM t WHERE id = %s"
    assert empty_database.value(left, [len(types)]) == 0


def test_composite_whose_fields_are_null_is_a_value(empty_database: Database) -> None:
    """`IS NULL` says otherwise; one that stood there is kept, one of the source is written."""
    empty_database.script("""CREATE TYPE pair AS (a integer, b text); CREATE TABLE s (k integer PRIMARY KEY, v pair);
        INSERT INTO s VALUES (1, ROW(1, NULL)); CREATE TABLE t (id integer PRIMARY KEY, k integer, v pair);
        INSERT INTO t VALUES (1, 1, NULL), (2, 1, ROW(NULL, NULL))""")
    trial = Trial(
        empty_database, backfill(table="t", source="SELECT * FROM s", match="source.k = target.k", fill=["v"])
    )
    result, _ = run(trial)
    assert (result.written, result.already, result.left) == (1, 1, 0)
    assert empty_database.rows("SELECT v::text FROM t ORDER BY id") == [("(1,)",), ("(,)",)]
    trial.revert()
    assert empty_database.rows("SELECT v::text FROM t ORDER BY id") == [(None,), ("(,)",)]


def test_word_of_an_enum_renamed_since(empty_database: Database) -> None:
    """What was written can't be read any more as what it was: those rows are refused, and the rest goes back."""
    empty_database.script("""CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TABLE s (k integer PRIMARY KEY, v mood);
        INSERT INTO s VALUES (1, 'glad'), (2, 'sad'); CREATE TABLE t (id integer PRIMARY KEY, k integer, v mood);
        INSERT INTO t SELECT i, 1 + i % 2 FROM generate_series(1, 10) i""")
    trial = Trial(
        empty_database, backfill(table="t", source="SELECT * FROM s", match="source.k = target.k", fill=["v"])
    )
    run(trial)
    empty_database.script("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    trial.revert()
    assert empty_database.rows("SELECT v::text, count(*) FROM t GROUP BY 1 ORDER BY 1") == [("blue", 5), (None, 5)]
