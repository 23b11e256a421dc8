"""The `that:` language: what is read, what is refused and how it says so, and how it decides."""

from __future__ import annotations

import operator
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.contract import values
from steps.expressions import evaluate
from steps.expressions.evaluate import BadOperand, Expression, UnknownName
from steps.expressions.grammar import BadExpression

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def decide(text: str, **scope: values.Value) -> bool | None:
    return evaluate.evaluate(evaluate.parse(text), {k.replace("__", "."): v for k, v in scope.items()}).value


def refusal(text: str) -> BadExpression:
    with pytest.raises(BadExpression) as caught:
        evaluate.parse(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("count == 0", ("count",)),
        ("pct >= limits.coverage_pct", ("pct", "limits.coverage_pct")),
        ("phase2.baseline.covered < total and total > 0", ("phase2.baseline.covered", "total")),
        ("9900 <= written <= 10100", ("written",)),
        ("status in ['open', 'held'] or not ready", ("status", "ready")),
        ("max(a, b) - 0 if x else y".partition(" -")[0] + " > -1.5", ("a", "b")),
        ("min <= max", ("min", "max")),
        ("abs(delta) < 1e-3\n  and round(share, 2) == 0.25", ("delta", "share")),
        ('state == "it is null && %"', ("state",)),
    ],
)
def test_parse_gives_names_in_order(text, names):
    assert evaluate.parse(text) == Expression(text, names)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, "it is empty"),
        ("x = 5", 3, "write == to compare"),
        ("x := 5", 3, "can't assign"),
        ("(x := 5) > 3", 4, "can't assign"),
        ("x =< 5", 3, "write <="),
        ("x => 5", 3, "write >="),
        ("x === 5", 3, "write =="),
        ("a && b", 3, "write 'and'"),
        ("a || b", 3, "write 'or'"),
        ("a & b", 3, "write 'and'"),
        ("!done", 1, "write 'not'"),
        ("a <> b", 3, "write !="),
        ("a > 1 AND b > 1", 7, "write 'and' in lower case"),
        ("a > 1 Or b > 1", 7, "write 'or' in lower case"),
        ("NOT a", 1, "write 'not' in lower case"),
        ("flag == true", 9, "write True"),
        ("x IS NULL", 3, "answers unknown by itself"),
        ("x is not null", 3, "answers unknown by itself"),
        ("x == None", 6, "answers unknown by itself"),
        ("x is 5", 3, "instead of 'is'"),
        ("x between 1 and 2", 3, "low <= name <= high"),
        ("x like 'a%'", 3, "decide it in the query"),
        ("phase2-10k.x > 1", 1, "ids have underscores"),
        ("old-name-only == 1", 1, "ids have underscores"),
        ("pct >= 95%", 10, "the unit stands in the name"),
        ("age < 5m", 7, "carries no unit"),
        ("rows > 10k", 8, "carries no unit"),
        ("rows > 1,000", 1, "thousands separator"),
        ("x == 0x1f", 6, "carries no unit"),
        ("a + b > 3", 1, "arithmetic"),
        ("2 ** 99999999 > 1", 1, "arithmetic"),
        ("rows[0] > 3", 1, "square brackets"),
        ("x == [1]", 6, "a list stands only after 'in'"),
        ("x in (1, 2)", 6, "after 'in' stands a list"),
        ("x in []", 6, "after 'in' stands a list"),
        ("x in ['a', 1]", 6, "only numbers or only texts"),
        ("x in ['a' 'b']", 10, "a comma is missing"),
        ("x == 'it''s'", 10, "doubled as in SQL"),
        ("x in [1] == True", 13, "'in' can't be part of a chain"),
        ("0 < x in [1]", 10, "'in' can't be part of a chain"),
        ("a if b else c", 1, "write two checks"),
        ("lambda: 1", 1, "no functions to define"),
        ("x == f'{y}'", 6, "no prefix"),
        ("x == b'a'", 6, "no prefix"),
        ("x == 'a\\'b'", 8, "backslashes"),
        ("x == 'a", 6, "the quote isn't closed"),
        ("x == “a”", 6, "plain ASCII"),
        ("x ≥ 5", 3, "plain ASCII"),
        ("x > 1 # note\nand y > 1", 7, "beside the key in the YAML"),
        ("{{ x }} > 1", 1, "no template"),
        ("x > :limit", 5, "without a colon"),
        ("rand() < 1", 1, "no such function"),
        ("x.bit_length() > 1", 1, "no such function"),
        ("__import__('os') == 1", 1, "no such function"),
        ("x.__class__ == 1", 1, "begins with a letter"),
        ("_x == 1", 1, "begins with a letter"),
        ("abs(x)", 1, "must be true or false"),
        ("5", 1, "must be true or false"),
        ("'yes'", 1, "must be true or false"),
        ("x > 1 and 5", 11, "must be true or false"),
        ("not 5", 5, "must be true or false"),
        ("abs(x, y) > 1", 1, "abs takes 1 values"),
        ("min(x) > 1", 1, "min takes 2 to 9 values"),
        ("round(x, ndigits=1) > 1", 17, "write == to compare"),
        ("round(x, 1, 2) > 1", 1, "round takes 1 to 2 values"),
        ("round(x, -999999999) > 1", 10, "0 to 12 digits"),
        ("round(x, n) > 1", 10, "0 to 12 digits"),
        ("abs('x') > 1", 1, "abs takes numbers"),
        ("len(5) > 1", 1, "len takes text or a list"),
        ("min(*x, 1) > 1", 5, "only comparisons"),
        ("age < '5m'", 7, "text is never ordered"),
        ("'a' < x", 7, "text is never ordered"),
        ("'a' == 'b'", 8, "one side must be a name"),
        ("1 == 'a'", 6, "never equal"),
        ("x > True", 5, "have no order"),
        ("x == 1e999", 6, "only comparisons"),
        ("- x > 1", 1, "only a number can have a sign"),
        ("x == 'é' and b + 1", 14, "arithmetic"),
        ("  x ==\n  y + 1", 10, "arithmetic"),
        ("x ==", 5, "it isn't an expression"),
        ("x == 1; y", 7, "it isn't an expression"),
        ("(" * 300 + "x", None, "it isn't an expression"),
        ("not " * 40 + "x", None, "nested deeper than 12"),
        ("x == " + "1" * 500, 500, "longer than 500"),
    ],
)
def test_parse_refuses_with_column_and_right_form(text, column, reason):
    found = refusal(text)
    assert reason in found.reason
    assert column in (None, found.column)


def test_refusal_reads_as_one_sentence():
    assert str(refusal("x = 5")) == "cannot read expression 'x = 5' at column 3: write == to compare"


def test_parse_takes_integers_of_any_length():
    assert decide("x < 1" + "0" * 400, x=5) is True


def test_evaluate_compares_decimals_as_written():
    assert decide("pct >= 95.1", pct=95.1) is True
    assert decide("a == 0.3", a=0.1 + 0.2) is False
    assert decide("a == 0.3", a=Decimal("0.3")) is True
    assert decide("a > 12345678901234567890.1", a=Decimal("12345678901234567890.2")) is True
    assert decide("abs(a) == 1234567890123456789012345678901.5", a=Decimal("-1234567890123456789012345678901.5"))
    assert decide("a == -0.5", a=-0.5) is True


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9900 <= n <= 10100", True),
        ("n in [1, -10000, 10000.0]", True),
        ("n not in [1, 2]", True),
        ("s in ['open']", True),
        ("s == 'Open'", False),
        ("len(s) == 4 and len(tags) == 2", True),
        ("max(n, 3, 12000.5) == 12000.5 and min(n, 3) == 3", True),
        ("round(half) == 3 and round(-2.5) == -3", True),
        ("round(2.345, 2) == 2.35 and round(n, 2) == 10000 and round(endless) > n", True),
        ("flag and not (n < 5 or s != 'open')", True),
        ("flag == 1 and flag == True and zero == False", True),
        ("max(early, late) == late and early < late and day >= day and span > span", False),
    ],
)
def test_evaluate_decides(text, answer):
    values = {
        "n": 10_000,
        "s": "open",
        "half": 2.5,
        "flag": True,
        "zero": 0,
        "tags": ["a", "b"],
        "endless": float("inf"),
        "early": NOON,
        "late": NOON + timedelta(seconds=1),
        "day": date(2030, 1, 1),
        "span": timedelta(1),
    }
    assert evaluate.evaluate(evaluate.parse(text), values).value is answer


@pytest.mark.parametrize("value", [None, float("nan"), Decimal("NaN"), Decimal("sNaN")])
def test_evaluate_answers_unknown_where_an_operand_is_missing(value):
    found = evaluate.evaluate(evaluate.parse("ready or pct > 1"), {"ready": True, "pct": value})
    assert found.value is None
    assert found.reason in ("pct is NULL", "pct is not a number (NaN)")


def test_evaluate_names_every_missing_operand():
    found = evaluate.evaluate(evaluate.parse("a > b"), {"a": None, "b": None})
    assert found.reason == "a is NULL, b is NULL"


def test_evaluate_says_which_part_is_false():
    found = evaluate.evaluate(evaluate.parse("a > 1 and b > 1 and c > 1"), {"a": 0, "b": 2, "c": 1})
    assert (found.value, found.reason) == (False, "a > 1 is false, c > 1 is false")


def test_evaluate_finds_an_unknown_name_behind_a_short_circuit():
    with pytest.raises(UnknownName) as caught:
        decide("total > 0 or coverd > 0", total=1, covered=1)
    assert (caught.value.name, caught.value.near) == ("coverd", ("covered",))
    assert str(caught.value) == "unknown name 'coverd', did you mean 'covered'"


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ("x", 5, "must be true or false, and is '5' (a number)"),
        ("x and True", "yes", "must be true or false"),
        ("not x", 0, "must be true or false"),
        ("x > 5", "12m", "cannot order '12m' (text) and '5' (a number): text is never ordered"),
        ("x > 5", True, "cannot order"),
        ("1 > 2 or (2 > 1 or x > 5)", "a", "cannot order"),
        ("1 > 2 and x > 5", "a", "cannot order"),
        ("x == 5", "5", "cannot compare '5' (text) with '5' (a number): cast one of them in the query"),
        ("x in [1, 2]", "1", "cannot compare"),
        ("x == 'a'", uuid4(), "cannot compare"),
        ("x == 2", True, "cannot compare"),
        ("x == 5", [1], "cannot compare"),
        ("x in x", 5, "after 'in' stands a list"),
        ("x < x", NOON.replace(tzinfo=None), "cannot order"),
        ("x > 5", NOON, "cannot order"),
        ("abs(x) > 5", "a", "abs takes a number"),
        ("round(x) > 5", NOON, "round takes a number"),
        ("len(x) > 5", 7, "len takes text or a list"),
        ("max(x, 5) > 5", "a", "cannot order"),
        ("max(x, y) == 5", "a", "cannot order"),
    ],
)
def test_evaluate_refuses_operands_of_different_kinds(text, value, reason):
    with pytest.raises(BadOperand) as caught:
        decide(text, x=value, y=value)
    assert reason in caught.value.reason


def test_evaluate_refuses_an_expression_that_was_never_parsed():
    with pytest.raises(BadExpression):
        evaluate.evaluate(Expression("__import__('os').system('true') == 0", ()), {})


def test_evaluate_takes_names_from_the_scope_only():
    with pytest.raises(UnknownName):
        decide("len == 1", x=1)
    assert decide("max <= 5", max=5) is True
    assert decide("min(min, max) == 1", min=1, max=5) is True


def test_check_names_gives_near_misses_and_knows_prefixes():
    expression = evaluate.parse("baseline.rows > 1 and pct >= limits.coverage and totl > 0")
    known = {"baseline.*", "pct", "limits.coverage_pct", "total"}
    assert evaluate.check_names(expression, known) == [
        ("limits.coverage", ("limits.coverage_pct",)),
        ("totl", ("total",)),
    ]


def test_explain_writes_values_for_people():
    values = {"a": 100_000, "b": Decimal("95.10"), "c": None, "d": "x" * 200, "e": "a\x1b[2J\nb", "f": Decimal("1E+3")}
    text = "a > 1 and b > 1 and c == d and e == 'x' and f > 1"
    shown = evaluate.explain(evaluate.evaluate(evaluate.parse(text), values))
    assert shown == f"a=100000, b=95.1, c=NULL, d={'x' * 79}…, e=a [2J b, f=1000"


SIGNS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
PARTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(sorted(SIGNS)), st.integers(-3, 3)), min_size=1, max_size=4
)


def written(parts):
    return " and ".join(f"{name} {sign} {limit}" for name, sign, limit in parts)


@settings(max_examples=150, deadline=None)
@given(PARTS, st.integers(-4, 4), st.integers(-4, 4))
def test_evaluate_agrees_with_python_on_conjunctions(parts, a, b):
    expected = all(SIGNS[sign]({"a": a, "b": b}[name], limit) for name, sign, limit in parts)
    scope = {"a": a, "b": b}
    names = {name for name, _, _ in parts}
    assert decide(written(parts), **{name: scope[name] for name in names}) is expected


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abx_.019 ()[]'\"=<>!+-*/%&|,:#{}\\\n\té", max_size=40))
def test_parse_reads_or_refuses_any_text_and_nothing_else(text):
    try:
        found = evaluate.parse(text)
    except BadExpression as exc:
        assert exc.column >= 1
        return
    try:
        evaluate.evaluate(found, dict.fromkeys(found.names, 1))
    except BadOperand as exc:
        assert exc.reason


def test_parse_loads_no_evaluator():
    code = (
        "import sys; from steps.expressions import evaluate as e; e.parse('a > 1'); print('simpleeval' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
