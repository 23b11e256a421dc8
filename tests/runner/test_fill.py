"""Templates take names and five filters; everything else is refused before Jinja2 sees it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from runner.playbook.template import BadTemplate, fill, fill_sql
from steps.contract.dialect import Dialect
from steps.sql.dialect import BadIdentifier, quote
from steps.sql.scanner import BadSql, TokenKind, scan
from steps.sql.templates import has_template


class Result(BaseModel):
    covered: int = 95
    hidden: list[int] = [1]


@dataclass(frozen=True)
class Figures:
    rows: int = 7


VALUES = {
    "name": "Ada",
    "total": 12,
    "share": Decimal("99.50"),
    "nothing": None,
    "ok": True,
    "tables": ["a", "b"],
    "phase2": {"baseline": {"covered": 41, "items": "mine"}},
    "result": Result(),
    "figures": Figures(),
    "at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    "odd": 'we"ird',
}


def refused(text: str) -> str:
    with pytest.raises(BadTemplate) as caught:
        fill(text, VALUES, where="message")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain {text} with } and {#", "plain {text} with } and {#"),
        ("{{ name }}", "Ada"),
        ("{{name}} has {{ total }} of {{ share }}\n", "Ada has 12 of 99.50\n"),
        ("{{ nothing }}, {{ ok }}", "null, true"),
        ("{{ phase2.baseline.covered }}", "41"),
        ("{{ phase2.baseline.items }}", "mine"),
        ("{{ result.covered }} {{ figures.rows }}", "95 7"),
        ("{{ at }}", "2026-01-02 03:04:00+00:00"),
        ("{{ name | upper }} {{ name|lower }}", "ADA ada"),
        ("{{ tables | join }} {{ tables | join('-') }}", "a, b a-b"),
        ("{{ missing | default('none') }}", "none"),
        ("{{ missing.deeper | default(total) }}", "12"),
        ("{{ phase2.missing | default(0) }}", "0"),
        ("{{ nothing | default('x') }}", "null"),
        ("{{ odd | ident }}", '"we""ird"'),
        ("{{ '}}' }} {{ 'a' | upper }} {{ 1.5 }}", "}} A 1.5"),
        ("<b>{{ odd }}</b>", '<b>we"ird</b>'),
    ],
)
def test_fill_writes_values(text, filled):
    assert fill(text, VALUES, where="message") == filled


HELP = "only names, with the filters ident, upper, lower, default and join, can stand between {{ and }}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ nam }}", "cannot find 'nam' (did you mean 'name'?)"),
        ("{{ zzz }}", "cannot find 'zzz'"),
        ("{{ phase2.basline }}", "cannot find 'basline' (did you mean 'baseline'?)"),
        ("{{ name | default(zzz) }}", "cannot find 'zzz'"),
        ("{{ result.model_dump }}", "cannot find 'model_dump'"),
        ("{{ tables }}", "cannot write a list as text: name one part of it, or use the filter join"),
        ("{{ phase2 }}", "cannot write a dict as text: name one part of it, or use the filter join"),
        ("{{ name | join }}", "cannot join a str: only a list"),
        ("{{ 9**9**9 }}", f"cannot use '*' here: {HELP}"),
        ("{{ total + 1 }}", f"cannot use '+' here: {HELP}"),
        ("{{ ''.__class__ }}", f"cannot use '.' here: {HELP}"),
        ("{{ name.__class__ }}", f"cannot use '.' here: {HELP}"),
        ("{{ _name }}", f"cannot use '_' here: {HELP}"),
        ("{{ name() }}", f"cannot use '(' here: {HELP}"),
        ("{{ tables[0] }}", f"cannot use '[' here: {HELP}"),
        ("{{ name if ok }}", f"cannot use 'if' here: {HELP}"),
        ("{{ }}", f"cannot use '}}}}' here: {HELP}"),
        ("{{- name -}}", f"cannot use '-' here: {HELP}"),
        ("{{ self }}", "cannot use the word 'self' as a name"),
        ("{{ not }}", "cannot use the word 'not' as a name"),
        ("{{ name", "cannot find the end of a template: close it with }}"),
        ("{{ name | uper }}", f"cannot use the filter 'uper' (did you mean 'upper'?): {HELP}"),
        ("{{ name | attr('x') }}", f"cannot use the filter 'attr': {HELP}"),
        ("{{ name | upper(1) }}", "cannot use the filter 'upper' with 1 arguments"),
        ("{{ name | default }}", "cannot use the filter 'default' with 0 arguments"),
        ("{% for x in tables %}{% endfor %}", f"cannot use {{% in a template: {HELP}"),
        ("{{ name }}{# c #}", f"cannot use {{# in a template: {HELP}"),
        ("{{ name }}" + "x" * 10_000, "cannot use a template of 10,010 characters: at most 10,000"),
        ("{{ " + "(" * 9_000, f"cannot use '(' here: {HELP}"),
        ("{{ range }}", "cannot find 'range'"),
        ("{{ lipsum }}", "cannot find 'lipsum'"),
    ],
)
def test_fill_refuses_with_a_reason(text, reason):
    assert refused(text) == f"message: {reason}"


def test_output_is_bounded():
    values = {"long": "x" * 6_000, "huge": "x" * 1_000_000}
    for text in ("{{ long }}{{ long }}", "{{ huge }}"):
        with pytest.raises(BadTemplate, match="m: cannot write more than 10,000 characters"):
            fill(text, values, where="m")
    with pytest.raises(BadTemplate, match="m: cannot write more than 10,000 characters"):
        fill("{{ many | join }}", {"many": ["x" * 100] * 1_000}, where="m")


@pytest.mark.parametrize(("text", "has"), [("a", False), ("{a}", False), ("{{ a }}", True), ("{% a", True)])
def test_has_template(text, has):
    assert has_template(text) is has


def test_what_needs_no_jinja2_does_not_load_it():
    code = (
        "import sys; from runner.playbook.template import fill, fill_sql; fill('x', {}, where='');"
        "fill_sql('{{ a | ident }}', {'a': 'b'}, where=''); print('jinja2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@given(st.text(alphabet="{}%#ab.|()'\" _19*-", max_size=40))
def test_any_template_is_filled_or_refused(text):
    try:
        fill(text, {"a": "x", "b": {"a": 1}}, where="m")
    except BadTemplate:
        assert has_template(text)


@given(
    st.text(min_size=1, max_size=20).filter(lambda name: "\0" not in name and len(name.encode(errors="replace")) < 16)
)
def test_quoted_identifier_can_be_read_back(name):
    quoted = quote(name)
    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', "") == name.replace('"', "")
    assert quoted[1:-1].count('"') == 2 * name.count('"')


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "cannot use '' as a name: it is empty"),
        ("a\0b", r"cannot use 'a\x00b' as a name: it has a NUL character"),
        ("é" * 32, f"cannot use {'é' * 32!r} as a name: it has 64 bytes, and PostgreSQL cuts it at 63"),
    ],
)
def test_identifier_that_cannot_be_is_refused(name, message):
    with pytest.raises(BadIdentifier) as caught:
        quote(name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("sql", "filled"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT * FROM {{ odd | ident }}.{{name|ident}}", 'SELECT * FROM "we""ird"."Ada"'),
        ("SELECT ':x', e'it\\'s' -- it's\n FROM {{ name | ident }} /* ' */",
         "SELECT ':x', e'it\\'s' -- it's\n FROM \"Ada\" /* ' */"),
        ("SELECT $$ ' $$, $1 FROM {{ name | ident }}", "SELECT $$ ' $$, $1 FROM \"Ada\""),
        ("SELECT '{a,b}'::text[], x #>> '{c,d}' FROM {{ name | ident }}",
         "SELECT '{a,b}'::text[], x #>> '{c,d}' FROM \"Ada\""),
        ("SELECT '{# %}', {{ name | ident }}", "SELECT '{# %}', \"Ada\""),
    ],
)  # fmt: skip
def test_fill_sql_quotes_identifiers(sql, filled):
    assert fill_sql(sql, VALUES, where="sql") == filled


IN_LITERAL = (
    "cannot use {{ or {% in a literal or comment: bind a parameter (:name) instead; "
    "an array of arrays is written '{ {1}, {2} }'"
)


IN_QUOTES = (
    "cannot use a template between {} and {}, which sqlite reads as a quoted name: `| ident` quotes by itself; "
    "an array's index belongs into a text of its own for postgresql"
)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT {{ name }}", "cannot use {{ in SQL: only {{ name | ident }} can stand there"),
        ("SELECT {{ name | upper | ident }}", "cannot use {{ in SQL: only {{ name | ident }} can stand there"),
        ("SELECT {{ 'x' | ident }}", "cannot use {{ in SQL: only {{ name | ident }} can stand there"),
        ("{% if x %}", "cannot use {% in SQL: only {{ name | ident }} can stand there"),
        ("SELECT '{{ name | ident }}'", IN_LITERAL),
        ("SELECT 'it''s {{ name | ident }}'", IN_LITERAL),
        ("SELECT E'\\'{{ name | ident }}'", IN_LITERAL),
        ('SELECT "a{{ name | ident }}"', IN_LITERAL),
        ("DO $x$ {{ name | ident }} $x$", IN_LITERAL),
        ("-- {{ name | ident }}", IN_LITERAL),
        ("/* {{ name | ident }} */", IN_LITERAL),
        ("SELECT '{{1,2},{3,4}}'::int[]", IN_LITERAL),
        ("SELECT 'open {{ name | ident }}", "cannot use the quote ' that begins here never ends"),
        ("SELECT `{{ name | ident }}`", IN_QUOTES.format("`", "`")),
        ("SELECT [{{ name | ident }}]", IN_QUOTES.format("[", "]")),
        ("SELECT [a {{ name | ident }}]", IN_QUOTES.format("[", "]")),
        ('SELECT U&"{{ name | ident }}"', IN_LITERAL),
        (
            "SELECT U&{{ name | ident }}",
            'cannot use a template behind U&, where "\\0041" is another name: leave U& out',
        ),
        (
            "SELECT {{ name|ident }}{{ name|ident }}",
            'cannot use the name "Ada" would run into its neighbour: put a space between',
        ),
        ("SELECT {{ nam | ident }}", "cannot find 'nam' (did you mean 'name'?)"),
        ("SELECT {{ phase2.basline | ident }}", "cannot find 'basline' (did you mean 'baseline'?)"),
        ("SELECT {{ total | ident }}", "cannot use 'total' as an identifier: its value is of type int"),
    ],
)
def test_fill_sql_refuses_everything_else(sql, reason):
    with pytest.raises(BadTemplate) as caught:
        fill_sql(sql, VALUES, where="sql")
    assert str(caught.value) == f"sql: {reason}"


def test_an_index_of_an_array_in_a_text_for_postgresql():
    filled = fill_sql("SELECT a[{{ name | ident }}]", VALUES, where="sql", dialects=[Dialect.POSTGRESQL])
    assert filled == 'SELECT a["Ada"]'


QUOTINGS = (
    "{}", " {} ", "[{}]", "`{}`", '"{}"', "'{}'", "$${}$$", "$x${}$x$", "E'{}'", "e'\\'{}'", "--{}", "/*{}*/", "/*/*{}*/", "U&{}", 'U&"{}"',
    "x{}", "{}x", '""{}', "'' {}", "({})", "a.{}.b", "{}{}", ":{}", "${}$", "$x{}$x$", "N'{}'", "1{}", "{};{}", "[{}", "{}]", "`{}", "{}`",
)  # fmt: skip
HOSTILE = st.text(alphabet="ax]['\"`$\\;-/*: \n%(){}&é", min_size=1, max_size=12)


@given(
    context=st.sampled_from(QUOTINGS),
    around=st.sampled_from(QUOTINGS),
    value=HOSTILE,
    of=st.sampled_from(["", *Dialect]),
)
def test_a_hostile_value_stays_one_name_or_is_refused(context, around, value, of):
    """Whoever reads the text sees the same tokens as with a harmless name, but for the name."""
    dialects = [Dialect(of)] if of else list(Dialect)
    text = "SELECT " + around.replace("{}", context.replace("{}", "{{ v | ident }}"))
    try:
        filled = fill_sql(text, {"v": value}, where="sql", dialects=dialects)
        harmless = fill_sql(text, {"v": "harmless"}, where="sql", dialects=dialects)
    except BadTemplate:
        return
    for dialect in dialects:
        try:
            tokens = list(scan(harmless, dialect))
        except BadSql:
            continue  # this one can't read it: nothing is sent
        plain = [(one.kind, one.text if one.text != '"harmless"' else quote(value)) for one in tokens]
        assert [(one.kind, one.text) for one in scan(filled, dialect)] == plain
        assert any(one.kind is TokenKind.QUOTED and one.text == quote(value) for one in scan(filled, dialect))


def test_long_sql_is_read_at_once():
    sql = "SELECT '" + "x''" * 300_000 + "' FROM {{ name | ident }}"
    assert fill_sql(sql, VALUES, where="sql").endswith('FROM "Ada"')
