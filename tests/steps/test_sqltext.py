"""Scripts cut into single statements, and a scanner that neither loses a character nor mistakes a literal."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steps.contract.dialect import Dialect
from steps.sql import dialect
from steps.sql.scanner import BadSql, StatementText, scan, split

PG, LITE = Dialect.POSTGRESQL, Dialect.SQLITE
BOTH = [PG, LITE]


def texts(sql, of=PG):
    return [piece.text for piece in split(sql, of)]


SNIPPETS = [
    "select 1",
    "select ';', 'it''s;' -- ; note\n, 2",
    'create table "a;b" (c int default (1))',
    "select /* ; */ 1",
    "create rule r as on insert to t do also (select 1; select 2)",
    "select case when 1 = 1 then ';' end",
    "begin",
    "end",
]
ONLY = {
    PG: [
        "select $$ ; $$, $a$ ; $$ ; $a$, e'\\';'",
        "select 1 /* /* ; */ ; */ , 2",
        "do $x$ begin perform 1; end $x$",
        "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end",
        "create procedure p() language sql begin atomic select (case when true then 1 end); end",
        "create function begin() returns int language sql as 'select 1;'",
        "select E'a'\n'\\';'",
        "select x[1:2], y::text, z @> '{}'",
    ],
    LITE: [
        "select [a;b], `c;d`, 'x\\'",
        "select 1 /* /* ; */ , 2",
        "create trigger t after insert on x begin select 1; update x set a = case 1 when 1 then 2 end; end",
        "create temp trigger if not exists t after update of a on x when (1) begin delete from x; END",
        "create temporary table trigger_begin (a)",
        "select x AS end from t",
    ],
}
GAPS = ["", "\n", " -- note; \n", "/* gap; */", "\n\n;\n"]


@pytest.mark.parametrize(("of", "snippet"), [(of, snippet) for of in BOTH for snippet in SNIPPETS + ONLY[of]])
def test_split_keeps_one_statement_whole(of, snippet):
    assert texts(snippet, of) == [snippet]
    assert texts(f"{snippet}; select 2;", of) == [snippet, "select 2"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_split_undoes_joining(data):
    of = data.draw(st.sampled_from(BOTH))
    snippets = data.draw(st.lists(st.sampled_from(SNIPPETS + ONLY[of]), max_size=5))
    script = ""
    lines = []
    for snippet in snippets:
        script += data.draw(st.sampled_from(GAPS))
        lines.append(script.count("\n") + 1)
        script += snippet + data.draw(st.sampled_from([";", "\n;", " /* ; */;"]))
    found = split(script + data.draw(st.sampled_from(GAPS)), of)
    assert [piece.text for piece in found] == snippets
    assert [piece.line for piece in found] == lines


SQLITE_TOKENS = [
    "select", "1", ";", "create", "temp", "trigger", "t", "begin", "end", "case", "'a;'", "--;\n", "/*;*/", "[;]", " ",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(SQLITE_TOKENS), max_size=16))
@example(["create", "trigger", "t", "begin", "end", ";"])
def test_split_ends_a_statement_where_sqlite_does(words):
    script = " ".join(words)
    expected = sqlite3.complete_statement(script)
    try:
        found = split(script + " ;", LITE)
    except BadSql:
        assert not expected  # a trigger without its end
        return
    assert not expected or [piece.text for piece in found] == texts(script, LITE)
    assert all(sqlite3.complete_statement(piece.text + ";") for piece in found)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BOTH), st.text(alphabet="ae:;'\"\\$-/*[]`(){}%\n 1é", max_size=30))
def test_scan_reads_every_character_or_refuses(of, sql):
    try:
        tokens = list(scan(sql, of))
    except BadSql as exc:
        assert 1 <= exc.line <= sql.count("\n") + 1
        return
    assert "".join(token.text for token in tokens) == sql
    assert [token.start for token in tokens] == [sum(len(t.text) for t in tokens[:i]) for i in range(len(tokens))]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:;'\\$%-/* \n", max_size=20), st.sampled_from(BOTH))
def test_parameters_are_never_found_inside_a_literal(text, of):
    sql = "select '" + text.replace("'", "''") + "', :real"
    assert dialect.parameters(sql, of) == ("real",)
    assert len(split(sql, of)) == 1
    assert dialect.parameters(f'select "{text.replace(chr(34), chr(34) * 2)}", :real', of) == ("real",)


def test_split_drops_comments_and_empty_statements():
    assert split("-- a\n;;/* b */\n", PG) == []
    assert split("\n-- a\n\n select 1 -- b\n;", PG) == [StatementText("select 1", 4)]


@pytest.mark.parametrize(
    ("sql", "of", "message"),
    [
        ("select 1;\n\\dt", PG, "line 2: psql meta-command \\dt"),
        ("copy t from stdin;\n1\n\\.\n", PG, "line 3: psql meta-command \\."),
        ("select 1 \\gx", PG, "line 1: psql meta-command \\gx"),
        (".tables", LITE, "line 1: sqlite3 shell command"),
        ("select\n'a", PG, "line 2: the quote ' that begins here never ends"),
        ("select E'a\\'", PG, "line 1: the quote E' that begins here never ends"),
        ('select "a', LITE, 'the quote " that begins here never ends'),
        ("select [a", LITE, "the quote [ that begins here never ends"),
        ("/* /* */", PG, "the comment that begins here never ends"),
        ("\nselect $a$ $$", PG, "line 2: the text that begins here with $a$ never ends"),
        ("select 1;\nselect (1; select 2", PG, "line 2: in the statement that begins here a parenthesis is never"),
        ("create function f() begin atomic select 1; select 2;", PG, "BEGIN ATOMIC has no END"),
        ("create trigger t after insert on x begin select 1;", LITE, "a trigger ends with '; END'"),
        ("select '\0'; \0", PG, "a NUL character"),
    ],
)
def test_split_refuses_with_line(sql, of, message):
    with pytest.raises(BadSql) as caught:
        split(sql, of)
    assert message in str(caught.value)
    assert str(caught.value).startswith("cannot read SQL, line ")


def test_split_gives_what_postgresql_runs_one_by_one(pg):
    script = """
    create table t (id int, note text); -- one; table
    create function twice(x int) returns int language sql begin atomic select case when x > 0 then x * 2 end; end;
    create function thrice(x int) returns int language plpgsql as $f$ begin return x * 3; /* ; */ end $f$;
    create rule r as on delete to t do also (select 1; select 2);
    insert into t values (twice(2), 'a;b'), (thrice(2), E'\\';');
    """
    pieces = split(script, PG)
    assert [piece.line for piece in pieces] == [2, 3, 4, 5, 6]
    with psycopg.connect(pg) as connection:
        for piece in pieces:
            connection.execute(dialect.bind(piece.text, PG), {}, binary=True)
        assert connection.execute("select id, note from t order by id").fetchall() == [(4, "a;b"), (6, "';")]
