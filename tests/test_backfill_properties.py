"""For any table, key and data: a backfill equals a single UPDATE, in any order and with any batch size, and back again."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import pytest
from databases import Database
from filling import adds_up, backfill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_context import Trial

from steps.base import State

COMMON = settings(
    max_examples=12, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
printable = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6
)
KEYS: dict[str, tuple[list[str], st.SearchStrategy]] = {
    "integer": (["bigint"], st.tuples(st.integers(-(2**63), 2**63 - 1))),
    "text": (["text"], st.tuples(printable)),
    "uuid": (["uuid"], st.tuples(st.uuids().map(str))),
    "composite": (["text", "integer"], st.tuples(printable, st.integers(-5, 5))),
    "time": (["timestamptz"], st.tuples(st.datetimes().map(lambda at: at.isoformat(sep=" ") + "+00"))),
}
maybe = st.none() | st.integers(0, 9)


@st.composite
def worlds(draw) -> tuple[str, list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """A kind of key; target rows (key…, a, b, link); source rows (id, a, b)."""
    kind = draw(st.sampled_from(sorted(KEYS)))
    keys = draw(
        st.lists(
            KEYS[kind][1], min_size=1, max_size=40, unique_by=lambda key: str(uuid.uuid5(uuid.NAMESPACE_OID, repr(key)))
        )
    )
    rows = [(*key, draw(maybe), draw(st.none() | printable), draw(maybe)) for key in keys]
    source = [(n, draw(maybe), draw(st.none() | printable)) for n in draw(st.sets(st.integers(0, 9)))]
    return kind, rows, source


def build(database: Database, kind: str, rows: list, source: list) -> list[str]:
    types = KEYS[kind][0]
    names = [f"k{n}" for n in range(len(types))]
    columns = ", ".join(f"{name} {one} NOT NULL" for name, one in zip(names, types, strict=True))
    for table in ("t", "twin", "s"):
        database.script(f"DROP TABLE IF EXISTS {table}")
    for table in ("t", "twin"):
        database.script(
            f"CREATE TABLE {table} ({columns}, a integer, b text, link integer, PRIMARY KEY ({', '.join(names)}))"
        )
    database.script("CREATE TABLE s (id integer PRIMARY KEY, a integer, b text)")
    mark = "?" if database.dialect == "sqlite" else "%s"
    with contextlib.closing(database.connect()) as connection:
        for table, values in (("t", rows), ("twin", rows), ("s", source)):
            cursor = connection.cursor()
            if values:
                cursor.executemany(f"INSERT INTO {table} VALUES ({', '.join([mark] * len(values[0]))})", values)
    return names


@COMMON
@given(world=worlds(), size=st.integers(1, 15), order=st.sampled_from(["auto", "key"]))
def test_backfill_equals_one_update(empty_database: Database, world, size: int, order: str) -> None:
    """F: B06 F: B08 F: B10"""
    names = build(empty_database, *world)
    step = backfill(
        table="t", source="SELECT id, a, b FROM s", match="source.id = target.link", fill=["a", "b"], order=order,
        batch={"time": "10 s", "rows": [size, size]},
    )  # fmt: skip
    before = empty_database.rows(f"SELECT * FROM t ORDER BY {', '.join(names)}")
    trial = Trial(empty_database, step)
    assert trial.preflight() == []
    result = trial.apply()
    empty_database.script("""UPDATE twin SET a = coalesce(twin.a, s.a), b = coalesce(twin.b, s.b) FROM s WHERE s.id = twin.link
                             AND ((twin.a IS NULL AND s.a IS NOT NULL) OR (twin.b IS NULL AND s.b IS NOT NULL))""")
    wanted = empty_database.rows(f"SELECT * FROM twin ORDER BY {', '.join(names)}")
    assert empty_database.rows(f"SELECT * FROM t ORDER BY {', '.join(names)}") == wanted
    assert (result.visited, result.in_range, result.left) == (len(before), len(before), 0)
    assert adds_up(result)
    assert result.written == sum(old != new for old, new in zip(before, wanted, strict=True))
    trial.revert()
    assert empty_database.rows(f"SELECT * FROM t ORDER BY {', '.join(names)}") == before
    assert trial.state() is State.NOT_DONE  # also where nothing was written


@COMMON
@given(size=st.integers(20, 400), dies=st.lists(st.integers(1, 12), max_size=4))
def test_any_deaths_leave_exact_figures(empty_database: Database, size: int, dies: list[int]) -> None:
    """F: E01 F: E05"""
    rows = [(n, None, None, n % 7) for n in range(200)]
    build(empty_database, "integer", rows, [(n, n, "x") for n in range(5)])
    step = backfill(
        table="t", source="SELECT id, a, b FROM s", match="source.id = target.link", fill=["a", "b"],
        batch={"time": "10 s", "rows": [size, size]},
    )  # fmt: skip
    trial = Trial(empty_database, step)
    for n in dies:
        with contextlib.suppress(KeyboardInterrupt):
            trial.dying_before(f"batch {n}").apply()
    result = trial.apply()
    assert (result.visited, result.written, result.not_in_source) == (200, 144, 56)
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("undo 1").revert()
    trial.revert()
    assert empty_database.value("SELECT count(*) FROM t WHERE a IS NOT NULL OR b IS NOT NULL") == 0
