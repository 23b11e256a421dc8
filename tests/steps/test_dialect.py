"""SQL as text: names, parameters, statements and templates, tried on the databases that must agree."""

from __future__ import annotations

import contextlib
import sqlite3

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.contract.dialect import Dialect
from steps.sql import dialect
from steps.sql.dialect import BadIdentifier
from steps.sql.scanner import BadSql, TokenKind, scan

PG, LITE = Dialect.POSTGRESQL, Dialect.SQLITE
BOTH = [PG, LITE]


# --- names


@pytest.mark.parametrize(("name", "quoted"), [("a", '"a"'), ('a"; drop', '"a""; drop"'), ("Ä b", '"Ä b"')])
def test_quote(name, quoted):
    assert dialect.quote(name) == quoted


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("a\0b", "it has a NUL character"),
        ("a" * 64, "it has 64 bytes, and PostgreSQL cuts it at 63"),
        ("ä" * 32, "it has 64 bytes, and PostgreSQL cuts it at 63"),
        ("\ud800", "it isn't valid Unicode"),
    ],
)
def test_quote_refuses_what_the_database_would_cut_or_refuse(name, reason):
    """F: G09."""
    with pytest.raises(BadIdentifier) as caught:
        dialect.quote(name)
    assert caught.value.reason == reason
    assert str(caught.value) == f"cannot use {name!r} as a name: {reason}"


def test_qualified():
    assert dialect.qualified("s", 't"', PG) == '"s"."t"""'
    assert dialect.qualified(None, "t", PG) == '"t"'
    assert dialect.qualified("main", "t", LITE) == '"main"."t"'
    with pytest.raises(BadIdentifier, match="SQLite has no schemas"):
        dialect.qualified("s", "t", LITE)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=15))
@settings(max_examples=60, deadline=None)
def test_quote_names_exactly_this_column(name):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        made = connection.execute(f"select 1 as {dialect.quote(name)}").description[0][0]
    assert made == name
    assert [token.kind for token in scan(dialect.quote(name), PG)] == [TokenKind.QUOTED]


def test_quote_takes_the_longest_name(empty_database):
    """F: G09."""
    name = "n" * 63
    empty_database.script(f"create table {dialect.quote(name)} (id int)")
    catalogue = "sqlite_master where name" if empty_database.dialect == "sqlite" else "pg_class where relname"
    assert empty_database.value(f"select count(*) from {catalogue} = '{name}'") == 1


# --- parameters


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select :a, :b2, :_c, :a", ("a", "b2", "_c")),
        ("where id>:low and id<=:high", ("low", "high")),
        ("select x::int, :x::int, '1'::text", ("x",)),
        ("select f(a := :v)", ("v",)),
        ("select x[1:n], x[lo:hi], x[f(1):n], x[y[1]:n]", ()),
        ("select x[:n]", ("n",)),
        ("select json_object('a':b, \"c\":d)", ()),
        ("select ARRAY[:a,:b]", ("a", "b")),
        ("select ':a', ':a'':b', \":c\", e':d\\':e', U&':f', x':g'", ()),
        ("select :a -- :b\n, :c /* :d /* :e */ :f */, :g", ("a", "c", "g")),
        ("select $$ :a $$, $t$ :b $$ $t$, :c", ("c",)),
        ("select a$b$, :c, $b$ :d $b$", ("c",)),
        ("select j->:k, j->>:l, j#>>:m, j @> :n, j ? :o, a||:p, -:q, 5 %:r", tuple("klmnopqr")),
        ("select '{\"a\":b}', '12:30:xx'", ()),
        ("select E'a' --\n '\\':b', :c", ("c",)),
        ("select somee'\\', :a", ("a",)),
    ],
)
def test_parameters_on_postgresql(sql, names):
    assert dialect.parameters(sql, PG) == names


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select [:a], `:b`, \":c\", ':d', :e", ("e",)),
        ("select 1 /* /* :a */ , :b /* */", ("b",)),
        ("select '\\', :a", ("a",)),
        ("select $$, :a", ("a",)),
    ],
)
def test_parameters_on_sqlite(sql, names):
    assert dialect.parameters(sql, LITE) == names


def test_parameters_refuse_a_name_that_goes_on():
    with pytest.raises(BadSql, match=r"line 2: the parameter :na goes on"):
        dialect.parameters("select 1,\n:naïve", PG)


def test_bind_writes_for_the_driver():
    sql = "select :a::int, x % 2, '100%', ':b' -- %s\n where t like :c"
    assert dialect.bind(sql, PG) == "select %(a)s::int, x %% 2, '100%%', ':b' -- %%s\n where t like %(c)s"
    assert dialect.bind(sql, LITE) == sql


@pytest.mark.parametrize(("sql", "of"), [("select :a, $1", PG), ("select :a, ?", LITE), ("select :a, ?1", LITE)])
def test_bind_refuses_positional_parameters_beside_named_ones(sql, of):
    with pytest.raises(BadSql, match="beside a named parameter"):
        dialect.bind(sql, of)


def test_bind_leaves_postgresql_operators_alone():
    assert dialect.bind("select j ? :key, $x1$ :no $x1$", PG).startswith("select j ? %(key)s")


def test_bind_gives_the_database_what_was_written(empty_database):
    of = Dialect(empty_database.dialect)
    sql = "select 7 % 4, '100% :a %s', :a /* :b % */, ':a', cast(:n as text) || '%' -- :c"
    with contextlib.closing(empty_database.connect()) as connection:
        row = connection.execute(dialect.bind(sql, of), {"a": "x'; %", "n": "5"}).fetchone()
        without = connection.execute(dialect.bind("select '%', 5 % 3", of), {}).fetchone()
    assert tuple(row) == (3, "100% :a %s", "x'; %", ":a", "5%")
    assert tuple(without) == ("%", 2)


def test_bind_keeps_what_only_postgresql_has(pg):
    sql = """select (array[1, 2, 3])[1:n], E'\\':x%' '', $q$ :y % $q$, jsonb '{"k": 1}' ? :k, :i::int, "a:b"
             from (values (2, 0)) v (n, "a:b")"""
    sql = sql.replace(" '',", ",")
    with psycopg.connect(pg) as connection:
        row = connection.execute(dialect.bind(sql, PG), {"k": "k", "i": "4"}).fetchone()
    assert row == ([1, 2], "':x%", " :y % ", True, 4, 0)


# --- what a statement is


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("-- a\n/* b */ Create unique INDEX x", ("CREATE", "UNIQUE", "INDEX")),
        ("((select 1))", ("SELECT",)),
        ("explain (analyze) select", ("EXPLAIN",)),
        ('"commit"', ()),
        ("ſelect 1", ()),
        ("", ()),
    ],
)
def test_first_words(sql, words):
    assert dialect.first_words(sql) == words


@pytest.mark.parametrize(
    "sql",
    [
        "begin", "START TRANSACTION", "commit", "/* */ end", "rollback to s", "abort", "savepoint s", "release s",
        "prepare transaction 'x'", "commit prepared 'x'", "set transaction read write",
        "select 1; commit; delete from t",
        "set local transaction_read_only = off", "set session characteristics as transaction read write",
    ],
)  # fmt: skip
def test_controls_transaction(sql):
    assert dialect.controls_transaction(sql)


@pytest.mark.parametrize(
    "sql",
    ["select 1", "set local lock_timeout = '2s'", "set transaction_timeout = 5", "prepare p as select 1", "",
     "-- commit",
     "select 'x; commit'", 'select 1 as "commit"', "do $$ begin perform 1; end $$"],
)  # fmt: skip
def test_controls_transaction_leaves_others_alone(sql):
    assert not dialect.controls_transaction(sql)


def test_controls_transaction_knows_that_comments_nest_in_postgresql_only():
    sql = "/* /* */ commit; /* */ */ select 1"
    assert dialect.controls_transaction(sql, dialect=LITE)
    assert not dialect.controls_transaction(sql)


ALONE = [
    "vacuum", "vacuum (analyze) t", "create index concurrently on t (id)",
    "create unique index concurrently i on t (id)",
    "drop index concurrently i", "reindex index concurrently i", "reindex (concurrently) table t",
    "reindex schema public",
    "create database d", "drop database d", "alter system set work_mem = '4MB'", "create tablespace s location '/x'",
    "alter table p detach partition p1 concurrently", "discard all", "alter database d set tablespace s", "cluster",
    "create index concurrently if not exists i on t (lower(note)) where id > 0",
]  # fmt: skip
TOGETHER = [
    "create index i on t (id)", "drop index i", "reindex table t", "alter table p detach partition p1", "analyze t",
    "refresh materialized view concurrently m", "alter type e add value 'c'", "select 'vacuum concurrently'",
    'create table "concurrently" (id int)', "select 1 as vacuum", "alter database d set work_mem = '4MB'",
    "cluster t using i",
]  # fmt: skip


def test_needs_autocommit():
    assert [sql for sql in ALONE if not dialect.needs_autocommit(sql)] == []
    assert [sql for sql in TOGETHER if dialect.needs_autocommit(sql)] == []
    assert dialect.needs_autocommit("select 1; vacuum t")
    assert dialect.needs_autocommit("vacuum", dialect=LITE)


def test_needs_autocommit_agrees_with_postgresql(pg):
    setup = """create table t (id int, note text); create table p (id int) partition by range (id);
               create table p1 partition of p for values from (0) to (9); create index i on t (id);
               create materialized view m as select 1 as id; create unique index on m (id);
               create type e as enum ('a')"""
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute(setup)
        for sql in ALONE + TOGETHER:
            assert _refused_in_transaction(connection, sql) is dialect.needs_autocommit(sql), sql


def _refused_in_transaction(connection, sql):
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(sql)
    except psycopg.errors.ActiveSqlTransaction:
        return True
    except psycopg.Error:
        return False  # it got as far as its own fault
    return False


# --- queries that only read


@pytest.mark.parametrize(
    ("sql", "of"),
    [
        ("select 1;", PG), ("with a as (select 1) select * from a", LITE), ("values (1)", PG), ("table t", PG),
        ("explain delete from t", PG), ("explain query plan select 1", LITE), ("show work_mem", PG),
        ("pragma table_info(t)", LITE), ("pragma main.page_count", LITE), ("(select 1) union (select 2)", PG),
        ("select replace('a', 'b', 'c'), (replace('a', 'b', 'c'))", LITE), ("select substring(a for 3) from t", PG),
        ("select update, delete from t -- delete\n", PG), ("select count(*) from t where a = :x", PG),
    ],
)  # fmt: skip
def test_is_single_select_takes_queries(sql, of):
    assert dialect.is_single_select(sql, of) is None


@pytest.mark.parametrize(
    ("sql", "of", "reason"),
    [
        ("", PG, "it is empty"),
        ("select 1; select 2", PG, "it has 2 statements"),
        ("delete from t", PG, "it begins with 'DELETE'"),
        ('"x"', PG, "it begins with '\"x\"'"),
        ("show x", LITE, "it begins with 'SHOW'"),
        ("pragma table_info(t)", PG, "it begins with 'PRAGMA'"),
        ("with a as (delete from t returning *) select * from a", PG, "changes data (DELETE)"),
        ("with a as (select 1) insert into t select * from a", LITE, "changes data (INSERT)"),
        ("with a as (select 1) replace into t select * from a", LITE, "changes data (REPLACE)"),
        ("select * into u from t", PG, "makes a table"),
        ("select * from t for update", PG, "locks rows"),
        ("select * from t for no key update", PG, "locks rows"),
        ("explain analyze delete from t", PG, "EXPLAIN ANALYZE runs"),
        ("explain (verbose, analyze) select 1", PG, "EXPLAIN ANALYZE runs"),
        ("pragma journal_mode = wal", LITE, "PRAGMA journal_mode can change"),
        ("pragma main.user_version(5)", LITE, "PRAGMA user_version can change"),
        ("pragma optimize", LITE, "PRAGMA optimize can change"),
        ("pragma", LITE, "PRAGMA  can change"),
        ("select 'a", PG, "never ends"),
    ],
)
def test_is_single_select_refuses(sql, of, reason):
    assert reason in (dialect.is_single_select(sql, of) or "")
