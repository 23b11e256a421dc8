"""Values keep their type and their digits: through JSON, trail and ledger, in comparisons, and bounded for the record."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.common.secrets import Masks
from runner.trail import trail
from runner.trail.events import ADAPTER, CheckAnswered
from runner.trail.status import fold
from steps.contract import Answer, Value, values
from steps.contract.values import Cut
from steps.expressions.evaluate import BadOperand, evaluate, parse

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DECIMALS = st.one_of(st.decimals(allow_nan=False), st.from_regex(r"\A-?[0-9]{1,40}(\.[0-9]{1,40})?\Z").map(Decimal))
ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=-3, minutes=-30))])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**18, max_value=10**40),
    st.floats(allow_nan=False),
    DECIMALS,
    st.text(),
    st.binary(),
    st.dates(),
    st.times(),
    st.datetimes(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    st.builds(Cut, st.text(), st.integers(), st.text()),
)
KEYS = st.one_of(st.text(), st.sampled_from(["$decimal", "$map", "$cut", "$date"]))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2), max_leaves=6
)


def types(value: Value) -> object:
    """A value's type, with those of all that it holds."""
    if isinstance(value, list):
        return [types(one) for one in value]
    return {key: types(one) for key, one in value.items()} if isinstance(value, dict) else type(value)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_a_value_comes_back_from_json_as_it_was(value: Value) -> None:
    written = json.dumps(values.encode(value), allow_nan=False)
    back = values.decode(json.loads(written))
    assert back == value
    assert types(back) == types(value)
    json.dumps(values.readable(value), allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(min_size=1, alphabet="abc"), VALUES, max_size=3))
def test_an_event_comes_back_from_the_trail_as_it_was(result: dict[str, Value]) -> None:
    event = CheckAnswered(
        step="", role="criterion", id="c", probe="query", answer=Answer.PASS, text="", operands=result, result=result
    )
    try:
        line = event.model_dump_json()
    except ValueError:
        return  # a lone surrogate: the trail writes an escape instead
    again = ADAPTER.validate_json(line)
    assert isinstance(again, CheckAnswered)
    assert (again.result, types(again.result)) == (result, types(result))
    assert again.model_dump_json() == line


@settings(max_examples=150, deadline=None)
@given(SCALARS, SCALARS, st.sampled_from(["==", "!=", "<", ">="]))
def test_a_comparison_says_the_same_after_the_record(a: Value, b: Value, sign: str) -> None:
    def says(left: Value, right: Value) -> object:
        try:
            return evaluate(parse(f"x {sign} y"), {"x": left, "y": right}).value
        except BadOperand:
            return "error"

    def recorded(value: Value) -> Value:
        return values.decode(json.loads(json.dumps(values.encode(value))))

    assert says(recorded(a), b) == says(a, b) == says(a, recorded(b))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.integers(), DECIMALS), st.one_of(st.integers(), DECIMALS))
def test_numbers_are_equal_only_where_every_digit_is(a: Decimal, b: Decimal) -> None:
    same = a == b
    assert evaluate(parse("x == y"), {"x": a, "y": b}).value is same
    assert (values.sortable(a) == values.sortable(b)) is same


@settings(max_examples=100, deadline=None)
@given(st.lists(SCALARS, max_size=4), st.lists(SCALARS, max_size=4))
def test_lists_are_compared_as_lists(a: list[Value], b: list[Value]) -> None:
    try:
        found = evaluate(parse("x == y"), {"x": a, "y": b}).value
    except BadOperand:
        return
    assert found is None or found is (values.exact(a) == values.exact(b))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NOON.replace(tzinfo=None), NOON),
        (NOON.date(), NOON),
        ("infinity", NOON),
        (UUID(int=1), str(UUID(int=1))),
        (Decimal(1), "1"),
        ([1], 1),
        ([1], ["1"]),
        (time(1), "01:00:00"),
    ],
)
@pytest.mark.parametrize("sign", ["==", "!=", "<"])
def test_values_of_two_kinds_are_never_compared(one: Value, other: Value, sign: str) -> None:
    with pytest.raises(BadOperand):
        evaluate(parse(f"x {sign} y"), {"x": one, "y": other})


@pytest.mark.parametrize(
    "value",
    [
        None,
        Decimal("NaN"),
        float("nan"),
        Cut("a", 9, "characters"),
        [1, Cut("a", 9, "characters")],
        {"a": Decimal("NaN")},
    ],
)
@pytest.mark.parametrize("sign", ["==", "!="])
def test_what_has_no_value_or_was_cut_is_unknown(value: Value, sign: str) -> None:
    assert evaluate(parse(f"x {sign} x"), {"x": value}).value is None


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(min_size=1, alphabet="abc"), VALUES, max_size=4), st.integers(0, 3))
def test_a_bounded_result_is_small_and_what_was_cut_says_so(result: dict[str, Value], grow: int) -> None:
    large: dict[str, Value] = {
        **result,
        "t": "x" * 10 ** (grow + 3),
        "l": ["y" * 100] * 10 ** (grow + 1),
        "n": 10 ** (10**grow),
    }
    found = values.bounded(large)
    assert len(json.dumps(values.encode_all(found))) < 20 * values.LARGEST
    for name, value in found.items():
        assert value == large[name] or values.why_unknown(value)


def test_an_old_trail_is_read_as_it_stands() -> None:
    line = (
        '{"event":"check_answered","step":"","role":"criterion","id":"c","probe":"query","answer":"pass","text":"",'
        '"operands":{"pct":95.1},"result":{"pct":95.1,"at":"2026-01-01T00:00:00+00:00","table":[{"a":1}]}}'
    )
    event = ADAPTER.validate_json(line)
    assert isinstance(event, CheckAnswered)
    assert event.result == {"pct": 95.1, "at": "2026-01-01T00:00:00+00:00", "table": [{"a": 1}]}


def test_figures_of_the_trail_have_their_types_and_secrets_are_masked(tmp_path: Path) -> None:
    masks = Masks()
    masks.add("77777777")
    path = tmp_path / "trail.jsonl"
    book = trail.Trail(path, masks=masks)
    told: dict[str, Value] = {
        "s": Decimal("12345678901234567890.10"),
        "d": date(2026, 1, 1),
        "p": Decimal(1777777770),
    }
    book.append(CheckAnswered(step="", role="criterion", id="c", probe="q", answer=Answer.PASS, text="", result=told))
    book.close()
    assert "77777777" not in path.read_text()
    figures = fold(trail.read(path)).figures["c"]
    assert (figures["s"], figures["d"]) == (told["s"], told["d"])
    assert str(figures["s"]) == "12345678901234567890.10"
    assert isinstance(figures["p"], str)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Decimal("0.10"), 0.1),
        (Decimal(10**15), 10**15),
        (Decimal(12345678901234567890), "12345678901234567890"),
        (Decimal("0.12345678901234567890123"), "0.12345678901234567890123"),
        (Decimal("Infinity"), "Infinity"),
        (10**30, 10**30),
        (timedelta(seconds=90), 90.0),
    ],
)
def test_a_number_for_a_reader_without_types_is_exact(value: Value, shown: object) -> None:
    assert values.readable(value) == shown


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, Decimal("12345678901234567890.1"), float("nan")])
def test_sqlite_is_never_given_another_number(value: Value) -> None:
    with pytest.raises(values.NoPlace):
        values.for_sqlite(value)
