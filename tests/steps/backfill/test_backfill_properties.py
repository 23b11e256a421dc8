"""For any table, key and data: a backfill equals a single UPDATE, in any order and with any batch size, and back again."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from databases import Database
from filling import adds_up, backfill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_context import Trial

from steps.contract import Paused, State
from steps.types.backfill.step import BackfillResult

pytestmark = pytest.mark.newest

COMMON = settings(
    max_examples=20, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
NASTY = [
    "'",
    '"',
    "\\",
    "%",
    "%s",
    ":x",
    "?",
    "{}",
    "[]",
    "null",
    "--",
    "\t",
    "a-",
    "A",
    "a",
    "ä",
    "ß",
    "ss",
    "İ",
    "\u200b",
    "e\u0301",
]
printable = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6
)
texts = st.sampled_from(NASTY) | printable
moments = st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)).flatmap(
    lambda day: st.times().map(lambda at: f"{day} {at}+00")
)
small = st.integers(0, 9)
VALUES: dict[str, st.SearchStrategy] = {
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.integers(-(10**14), 10**14).map(lambda n: str(Decimal(n).scaleb(-3))),
    "text": texts,
    "uuid": st.uuids().map(str),
    "date": st.dates(dt.date(1900, 1, 1)).map(str),
    "timestamptz": moments,
    "boolean": st.booleans(),
}
KEYS = [*((name,) for name in VALUES if name != "boolean"), ("text", "integer"), ("date", "text", "bigint")]
FILLS = ["integer", "text", "numeric", "timestamptz", "boolean", "uuid"]
COLLATIONS = {"sqlite": ["", "NOCASE", "RTRIM"], "postgresql": ["", '"C"', '"und-x-icu"']}
WHERE = [None, "target.link > 4", "target.f0 IS NULL", "target.link IS NULL OR target.f0 IS NOT NULL"]


@dataclass(frozen=True)
class World:
    """A table's key and the columns to fill, as types; its rows (key…, fill…, link); the source's rows (id, fill…)."""

    key: tuple[str, ...]
    fill: tuple[str, ...]
    collation: int
    rows: list[tuple[Any, ...]]
    source: list[tuple[Any, ...]]
    where: str | None

    @property
    def names(self) -> list[str]:
        return [f"k{n}" for n in range(len(self.key))]

    @property
    def fills(self) -> list[str]:
        return [f"f{n}" for n in range(len(self.fill))]


def distinct(key: tuple[Any, ...]) -> str:
    """What no collation here holds to be equal."""
    return repr([str(one).rstrip().lower() for one in key])


@st.composite
def worlds(draw) -> World:
    key, fill = draw(st.sampled_from(KEYS)), tuple(draw(st.lists(st.sampled_from(FILLS), min_size=1, max_size=3)))
    wanted = st.tuples(*(VALUES[one] for one in key))
    keys = draw(st.lists(wanted, min_size=1, max_size=40, unique_by=distinct))
    values = st.tuples(*(st.none() | VALUES[one] for one in fill))
    rows = [(*one, *draw(values), draw(st.none() | small)) for one in keys]
    source = [(n, *draw(values)) for n in draw(st.sets(small))]
    return World(key, fill, draw(st.integers(0, 2)), rows, source, draw(st.sampled_from(WHERE)))


def collation_of(database: Database, world: World) -> str:
    """As it is drawn; the default where the server was built without ICU."""
    name = COLLATIONS[database.dialect][world.collation]
    known = database.dialect == "sqlite" or not name or database.value("SELECT to_regcollation(%s)", [name])
    return name if known else ""


def build(database: Database, world: World) -> None:
    """The tables t, twin with the same rows, and s."""
    collation = collation_of(database, world)
    keys = [
        f"{name} {one}{f' COLLATE {collation}' if collation and one == 'text' else ''} NOT NULL"
        for name, one in zip(world.names, world.key, strict=True)
    ]
    fills = ", ".join(f"{name} {one}" for name, one in zip(world.fills, world.fill, strict=True))
    with contextlib.closing(database.connect()) as connection:
        for table in ("t", "twin", "s"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        for table in ("t", "twin"):
            primary = f"PRIMARY KEY ({', '.join(world.names)})"
            connection.execute(f"CREATE TABLE {table} ({', '.join(keys)}, {fills}, link integer, {primary})")
        connection.execute(f"CREATE TABLE s (id integer PRIMARY KEY, {fills})")
        mark = "?" if database.dialect == "sqlite" else "%s"
        for table, values in (("t", world.rows), ("twin", world.rows), ("s", world.source)):
            for row in values:
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join([mark] * len(row))})", row)


def update(world: World) -> str:
    """The single UPDATE of twin, which changes no row in vain."""
    sets = ", ".join(f"{name} = coalesce(target.{name}, source.{name})" for name in world.fills)
    needs = " OR ".join(f"(target.{name} IS NULL AND source.{name} IS NOT NULL)" for name in world.fills)
    where = f" AND ({world.where})" if world.where else ""
    return f"UPDATE twin AS target SET {sets} FROM s AS source WHERE source.id = target.link AND ({needs}){where}"


def read(database: Database, table: str, world: World, *, versions: bool = False) -> list[tuple]:
    more = "" if not versions else ", rowid" if database.dialect == "sqlite" else ", ctid::text, xmin::text"
    return database.rows(f"SELECT *{more} FROM {table} ORDER BY {', '.join(world.names)}")


def ends(trial: Trial) -> BackfillResult:
    """Go on after a pause."""
    try:
        result = trial.apply()
    except Paused:
        result = trial.apply()
    assert isinstance(result, BackfillResult)
    return result


@COMMON
@given(
    world=worlds(),
    size=st.integers(1, 15),
    order=st.sampled_from(["auto", "key"]),
    dies=st.lists(st.integers(1, 12), max_size=2),
    pause=st.none() | st.builds(lambda by, n: {by: n}, st.sampled_from(["written", "batches"]), st.integers(1, 6)),
)
def test_backfill_equals_one_update(
    empty_database: Database, world: World, size: int, order: str, dies: list[int], pause: dict | None
) -> None:
    """With deaths and a pause on the way; a second run writes nothing; the way back restores exactly.

    F: B06 F: B08 F: B09 F: B10 F: B16 F: E01 F: E02 F: E05 F: F03 F: H03
    """
    build(empty_database, world)
    step = backfill(
        table="t", source=f"SELECT id, {', '.join(world.fills)} FROM s", match="source.id = target.link",
        fill=world.fills, order=order, where=world.where, expect_work=False, batch={"time": "10 s", "rows": [size, size]},
        pause_after=pause,
    )  # fmt: skip
    before = read(empty_database, "t", world)
    trial = Trial(empty_database, step)
    assert trial.preflight() == []
    for n in dies:
        with contextlib.suppress(KeyboardInterrupt, Paused):
            trial.dying_before(f"batch {n}").apply()
    result = ends(trial)
    empty_database.script(update(world))
    wanted = read(empty_database, "twin", world)
    assert read(empty_database, "t", world) == wanted
    assert adds_up(result)
    assert (result.visited, result.in_range, result.left) == (result.at_start, result.at_start, 0)
    assert result.at_start == len(before) or world.where
    assert result.written == sum(old != new for old, new in zip(before, wanted, strict=True))
    versions, again = read(empty_database, "t", world, versions=True), trial.again()
    assert ends(again).written == 0
    assert read(empty_database, "t", world, versions=True) == versions
    with contextlib.suppress(KeyboardInterrupt):
        trial.dying_before("undo 1").revert()
    trial.revert()
    assert read(empty_database, "t", world) == before
    assert trial.state() is State.NOT_DONE  # also where nothing was written


@settings(COMMON, max_examples=12)
@given(size=st.integers(20, 400), dies=st.lists(st.integers(1, 12), max_size=4))
def test_any_deaths_leave_exact_figures(empty_database: Database, size: int, dies: list[int]) -> None:
    """F: E01 F: E05"""
    rows = [(n, None, None, n % 7) for n in range(200)]
    source = [(n, n, "x") for n in range(5)]
    build(empty_database, World(("bigint",), ("integer", "text"), 0, rows, source, None))
    step = backfill(
        table="t", source="SELECT id, f0, f1 FROM s", match="source.id = target.link", fill=["f0", "f1"],
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
    assert empty_database.value("SELECT count(*) FROM t WHERE f0 IS NOT NULL OR f1 IS NOT NULL") == 0
